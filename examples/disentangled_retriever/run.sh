#!/usr/bin/env bash
# Disentangled-Retriever's recipe: average pooling, adapters, Margin-MSE, several evaluation sets.
# --small: in a minute, on a CPU.
set -euo pipefail
. "$(dirname "$0")/../recipe.sh" bert "$@"
MODEL=${MODEL:-jingtao/DAM-bert_base-mlm-msmarco}
TEACHER=${TEACHER:-$DATA/train.scores.pkl.gz}
LOTTE=${LOTTE:-$DATA/lotte}

COMMON=(--model_name_or_path "$MODEL" --pooling mean
    --lora --lora_r 192 --lora_alpha 192 --lora_target_modules query,value
    --q_max_len 24 --p_max_len 128 --train_n_passages 4 --per_device_train_batch_size 32
    --dataloader_drop_last --negatives_x_device --learning_rate 2e-5
    --lr_scheduler_type constant --fp16 --save_strategy epoch
    --train_qrels "$DATA/qrels.train.tsv" --train_query_file "$DATA/train.query.txt"
    --corpus_file "$OUT/corpus.tsv" --asyncval "$OUT/dev.yaml")

say "Prepare: title and text in one column, and two sets to validate on"
awk -F'\t' -v OFS='\t' '{ print $1, $2 ($2 == "" ? "" : $2 ~ /[.!?]$/ ? " " : ". ") $3 }' \
    "$DATA/corpus.tsv" > "$OUT/corpus.tsv"
cat > "$OUT/dev.yaml" <<END
tasks:
  - {name: marco, query_file: $DATA/dev.query.txt, candidate_dir: $OUT/corpus.tsv,
     qrel_file: $DATA/qrels.dev.tsv}
  - {name: lotte, query_file: $LOTTE/query.forum, candidate_dir: $LOTTE/corpus.tsv,
     qrel_file: $LOTTE/qrels.forum}
text_format: tsv
metrics: [RR@10, nDCG@10]
devices: ${VALIDATION_DEVICE:-auto}
END

say "Train contrastively, without false negatives; every checkpoint is validated on both"
train "${COMMON[@]}" --num_train_epochs 5 --output_dir "$OUT/contrast" \
    --qrels_file "$DATA/qrels.train.tsv" --neg_file "$DATA/train.negatives.tsv"

say "Mine hard negatives: the first 200"
trainer mine --model_name_or_path "$OUT/contrast" --query_file "$DATA/train.query.txt" \
    --candidate_dir "$OUT/corpus.tsv" --qrel_file "$DATA/qrels.train.tsv" \
    --depth_range 1 200 --form spaces --output_file "$OUT/hard.tsv"

say "Distil: the margins of a teacher's scores"
train "${COMMON[@]}" --num_train_epochs 20 --output_dir "$OUT/distil" \
    --objective margin_mse --teacher_score_files "$TEACHER" --neg_file "$OUT/hard.tsv"

say "Encode, search, write TREC's form, and evaluate"
trainer encode --model_name_or_path "$OUT/distil" --encoded_save_path "$OUT/vectors" \
    --query_file "$DATA/dev.query.txt" --candidate_dir "$OUT/corpus.tsv"
trainer search --query_reps "$OUT/vectors" --passage_reps "$OUT/vectors" --depth 1000 \
    --save_ranking_to "$OUT/dev.trec" --qrel_file "$DATA/qrels.dev.tsv" \
    --metrics RR@10 nDCG@10 R@1000

say "What the validation saw"
asyncval results --output_dir "$OUT/distil-validation"
