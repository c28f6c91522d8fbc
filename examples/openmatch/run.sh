#!/usr/bin/env bash
# OpenMatch's recipe: the decoder of T5, templates, a linear head. --small: in a minute, on a CPU.
set -euo pipefail
. "$(dirname "$0")/../recipe.sh" t5 "$@"
MODEL=${MODEL:-OpenMatch/t5-base-scaled}

WORDING=(--query_column_names id,text --query_template "<text>"
    --doc_column_names id,title,text --doc_template "Title: <title> Text: <text>")
COMMON=(--model_name_or_path "$MODEL" --pooling decoder --projection_dim 768
    --q_max_len 32 --p_max_len 128 --train_n_passages 8 --per_device_train_batch_size 8
    --negatives_x_device --learning_rate 5e-6 --warmup_steps 0.1 --num_train_epochs 3
    --fp16 --save_steps 20000
    --train_qrels "$DATA/qrels.train.tsv" --train_query_file "$DATA/train.query.txt"
    --corpus_file "$DATA/corpus.tsv" "${WORDING[@]}" --asyncval "$OUT/dev.yaml")

say "Prepare: a subset to validate on, worded as the training words it"
prepare_validation 'query_column_names: id,text
query_template: <text>
doc_column_names: id,title,text
doc_template: "Title: <title> Text: <text>"'

say "Train on given negatives; every checkpoint is validated"
train "${COMMON[@]}" --output_dir "$OUT/stage1" --neg_file "$DATA/train.negatives.tsv"

say "Mine hard negatives: 30 of the first 200"
trainer mine --model_name_or_path "$OUT/stage1" --query_file "$DATA/train.query.txt" \
    --candidate_dir "$DATA/corpus.tsv" --qrel_file "$DATA/qrels.train.tsv" "${WORDING[@]}" \
    --depth_range 1 200 --num_negatives 30 --form commas --output_file "$OUT/hard.tsv"

say "Train on them"
train "${COMMON[@]}" --output_dir "$OUT/stage2" --neg_file "$OUT/hard.tsv"

say "Encode"
trainer encode --model_name_or_path "$OUT/stage2" --encoded_save_path "$OUT/vectors" \
    --query_file "$DATA/dev.query.txt" --candidate_dir "$DATA/corpus.tsv" "${WORDING[@]}"

say "Search, write TREC's form, and evaluate"
trainer search --query_reps "$OUT/vectors" --passage_reps "$OUT/vectors" --depth 100 \
    --save_ranking_to "$OUT/dev.trec" --qrel_file "$DATA/qrels.dev.tsv" --metrics RR@10 R@100

say "What the validation saw"
asyncval results --output_dir "$OUT/stage2-validation"
