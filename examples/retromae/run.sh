#!/usr/bin/env bash
# RetroMAE's recipe: hard negatives, then a teacher's scores. --small: in a minute, on a CPU.
set -euo pipefail
. "$(dirname "$0")/../recipe.sh" bert "$@"
MODEL=${MODEL:-Shitao/RetroMAE_MSMARCO}
TEACHER=${TEACHER:-$DATA/train.scores.txt}

COMMON=(--model_name_or_path "$MODEL" --q_max_len 32 --p_max_len 140 --train_n_passages 16
    --per_device_train_batch_size 16 --negatives_x_device --learning_rate 2e-5
    --num_train_epochs 4 --fp16 --dataloader_num_workers 6 --save_steps 10000
    --train_qrels "$DATA/qrels.train.tsv" --train_query_file "$DATA/train.query.txt"
    --corpus_file "$DATA/corpus.tsv" --sample_neg_from_topk 200 --asyncval "$OUT/dev.yaml")

say "Prepare: a subset to validate on"
prepare_validation

say "Train on the negatives of BM25; every checkpoint is validated"
train "${COMMON[@]}" --output_dir "$OUT/stage1" --neg_file "$DATA/train.negatives.tsv"

say "Mine hard negatives: the first 200"
trainer mine --model_name_or_path "$OUT/stage1" --query_file "$DATA/train.query.txt" \
    --candidate_dir "$DATA/corpus.tsv" --qrel_file "$DATA/qrels.train.tsv" \
    --depth_range 1 200 --form commas --output_file "$OUT/hard.tsv"

say "Train on them, by a teacher's scores"
train "${COMMON[@]}" --output_dir "$OUT/stage2" --neg_file "$OUT/hard.tsv" \
    --objective kl --contrastive_loss_weight 0.0016 --teacher_score_files "$TEACHER"

say "Encode"
trainer encode --model_name_or_path "$OUT/stage2" --encoded_save_path "$OUT/vectors" \
    --query_file "$DATA/dev.query.txt" --candidate_dir "$DATA/corpus.tsv"

say "Search, write MS MARCO's form, and evaluate"
trainer search --query_reps "$OUT/vectors" --passage_reps "$OUT/vectors" --depth 1000 \
    --save_ranking_to "$OUT/dev.tsv" --save_format msmarco \
    --qrel_file "$DATA/qrels.dev.tsv" --metrics RR@10 RR@100 R@1000

say "What the validation saw"
asyncval results --output_dir "$OUT/stage2-validation"
