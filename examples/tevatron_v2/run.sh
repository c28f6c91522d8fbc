#!/usr/bin/env bash
# Tevatron v2's recipe: adapters on a decoder (RepLLaMA). --small: in a minute, on a CPU.
set -euo pipefail
. "$(dirname "$0")/../recipe.sh" llama "$@"
MODEL=${MODEL:-mistralai/Mistral-7B-v0.1}

COMMON=(--model_name_or_path "$MODEL" --pooling last --append_eos_token --normalize
    --temperature 0.01 --query_prefix "Query: " --passage_prefix "Passage: "
    --q_max_len 32 --p_max_len 156 --train_n_passages 16
    --lora --lora_r 16 --lora_alpha 64
    --lora_target_modules q_proj,k_proj,v_proj,o_proj,down_proj,up_proj,gate_proj
    --per_device_train_batch_size 32 --gc_chunk_size 8 --negatives_x_device --bf16
    --learning_rate 1e-4 --warmup_steps 100 --num_train_epochs 1 --save_steps 500
    --corpus_file "$DATA/corpus.tsv" --asyncval "$OUT/dev.yaml")
MINE=(--qrel_file "$DATA/qrels.train.tsv" --query_file "$DATA/train.query.txt" --form ids)

say "Prepare: a subset to validate on, and training lines of ids out of BM25's run"
prepare_validation
trainer mine "${MINE[@]}" --run_file "$DATA/train.trec" --num_negatives 30 \
    --output_file "$OUT/train.jsonl"

say "Train; every checkpoint is validated"
train "${COMMON[@]}" --output_dir "$OUT/stage1" --train_file "$OUT/train.jsonl"

say "Mine hard negatives: 30 of the first 200"
trainer mine "${MINE[@]}" --model_name_or_path "$OUT/stage1" --candidate_dir "$DATA/corpus.tsv" \
    --depth_range 1 200 --num_negatives 30 --output_file "$OUT/train.hard.jsonl"

say "Train on them"
train "${COMMON[@]}" --output_dir "$OUT/stage2" --train_file "$OUT/train.hard.jsonl"

say "Encode, with a process for each of DEVICES"
trainer encode --model_name_or_path "$OUT/stage2" --encoded_save_path "$OUT/vectors" \
    --query_file "$DATA/dev.query.txt" --candidate_dir "$DATA/corpus.tsv" \
    --devices ${DEVICES:-auto}

say "Search, write TREC's form, and evaluate"
trainer search --query_reps "$OUT/vectors" --passage_reps "$OUT/vectors" --depth 1000 \
    --save_ranking_to "$OUT/dev.trec" --qrel_file "$DATA/qrels.dev.tsv" --metrics RR@10 R@1000

say "What the validation saw"
asyncval results --output_dir "$OUT/stage2-validation"
