# What the recipes share; each sources it with the kind of its small model, and its own arguments.
#
# DATA is a folder in the form of MS MARCO that the toolkits' scripts leave behind (examples/README.md
# lists its files), MODEL the transformer to start from, OUT where everything goes. LAUNCH starts a
# training: LAUNCH="torchrun --nproc_per_node 7"; VALIDATION_DEVICE=cuda:7 keeps the validation off
# those GPUs. With --small, data and model are made out of this machine's Python sources, and
# SMALL_TRAIN makes a minute's work of the trainings, on a CPU.

examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$examples/..${PYTHONPATH:+:$PYTHONPATH}"
PYTHON=${PYTHON:-python}
SMALL_TRAIN=() SHARDS=10

small() {
    SMALL_DATA=${SMALL_DATA:-$OUT/small}
    DATA=$SMALL_DATA/data MODEL=$SMALL_DATA/$1 SHARDS=2 DEVICES=cpu
    SMALL_TRAIN=(--use_cpu --fp16 false --bf16 false --per_device_train_batch_size 8
        --train_n_passages 4 --p_max_len 64 --max_steps 12 --save_strategy steps --save_steps 6 --logging_steps 4
        --warmup_steps 3 --learning_rate 2e-3 --dataloader_num_workers 0)
    export XDG_CACHE_HOME=$SMALL_DATA/cache HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE
    export CUDA_VISIBLE_DEVICES=
    if [ ! -e "$DATA" ]; then
        "$PYTHON" "$examples/quickstart/collection.py" --output_dir "$SMALL_DATA/collection" \
            --packages networkx numpy scipy --num_passages 300 --num_queries 100
        "$PYTHON" "$examples/small_data.py" --collection "$SMALL_DATA/collection" \
            --output_dir "$DATA"
    fi
    if [ ! -e "$MODEL" ]; then
        "$PYTHON" "$examples/quickstart/model.py" --architecture "$1" --hidden_size 64 \
            --vocab_size 4000 --train_file "$SMALL_DATA/collection/train.jsonl" \
            --output_dir "$MODEL"
    fi
}

say() { printf '\n== %s\n' "$*" >&2; }
asyncval() { "$PYTHON" -m asyncval "$@"; }
trainer() { "$PYTHON" -m trainer "$@"; }
train() { ${LAUNCH:-$PYTHON} -m trainer train --report_to tensorboard "$@" "${SMALL_TRAIN[@]}"; }

# A validation during the training: a subset of the corpus, and what `asyncval watch` is told of it.
prepare_validation() {  # further lines of the configuration
    [ -e "$OUT/subset" ] || asyncval split --candidate_dir "$DATA/corpus.tsv" \
        --run_file "$DATA/dev.trec" --qrel_file "$DATA/qrels.dev.tsv" --depth 100 \
        --output_dir "$OUT/subset"
    cat > "$OUT/dev.yaml" <<END
query_file: $DATA/dev.query.txt
candidate_dir: $OUT/subset
qrel_file: $DATA/qrels.dev.tsv
metrics: [RR@10, R@100]
devices: ${VALIDATION_DEVICE:-auto}
${1-}
END
}

: "${DATA:=marco}" "${OUT:=out/$(basename "$(cd "$(dirname "$0")" && pwd)")}"
mkdir -p "$OUT"
if [ "${2-}" = --small ]; then small "$1"; fi
