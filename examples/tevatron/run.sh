#!/usr/bin/env bash
# Tevatron's recipe for MS MARCO passages, with Asyncval beside it. --small: in a minute, on a CPU.
set -euo pipefail
. "$(dirname "$0")/../recipe.sh" bert "$@"
MODEL=${MODEL:-Luyu/co-condenser-marco}

COMMON=(--model_name_or_path "$MODEL" --q_max_len 32 --p_max_len 128 --train_n_passages 8
    --per_device_train_batch_size 8 --learning_rate 5e-6 --warmup_steps 0.1 --fp16
    --save_steps 20000 --asyncval "$OUT/dev.yaml")

say "Prepare: a subset of the corpus, for the validation during the training"
prepare_validation

say "Train on the negatives of BM25; every checkpoint is validated"
train "${COMMON[@]}" --num_train_epochs 3 --output_dir "$OUT/stage1" \
    --train_qrels "$DATA/qrels.train.tsv" --neg_file "$DATA/train.negatives.tsv" \
    --train_query_file "$DATA/train.query.txt" --corpus_file "$DATA/corpus.tsv"

say "Mine hard negatives: 30 of the first 200"
trainer mine --model_name_or_path "$OUT/stage1" --query_file "$DATA/train.query.txt" \
    --candidate_dir "$DATA/corpus.tsv" --qrel_file "$DATA/qrels.train.tsv" \
    --depth_range 1 200 --num_negatives 30 --output_file "$OUT/train.hard.jsonl"

say "Train on them"
train "${COMMON[@]}" --num_train_epochs 2 --output_dir "$OUT/stage2" \
    --train_file "$OUT/train.hard.jsonl"

say "Encode the corpus, shard by shard, and the queries"
for ((shard = 0; shard < SHARDS; shard++)); do
    trainer encode --model_name_or_path "$OUT/stage2" --encoded_save_path "$OUT/vectors" \
        --query_file "$DATA/dev.query.txt" --candidate_dir "$DATA/corpus.tsv" \
        --encode_num_shard "$SHARDS" --encode_shard_index "$shard"
done

say "Search, write MS MARCO's form, and evaluate"
trainer search --query_reps "$OUT/vectors" --passage_reps "$OUT/vectors" --depth 1000 \
    --save_ranking_to "$OUT/dev.tsv" --save_format msmarco \
    --qrel_file "$DATA/qrels.dev.tsv" --metrics RR@10 R@1000

say "What the validation saw"
asyncval results --output_dir "$OUT/stage1-validation"
asyncval results --output_dir "$OUT/stage2-validation"
