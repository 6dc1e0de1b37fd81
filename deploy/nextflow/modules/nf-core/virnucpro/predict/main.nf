process VIRNUCPRO_PREDICT {
    tag "${meta.id}"
    label 'process_medium'

    conda "${task.accelerator ? "${moduleDir}/environment.gpu.yml" : "${moduleDir}/environment.yml"}"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'https://depot.galaxyproject.org/singularity/virnucpro:0.1.0--pyhdfd78af_0'
        : 'quay.io/biocontainers/virnucpro:0.1.0--pyhdfd78af_0'}"

    input:
    tuple val(meta), path(sequences)
    path models

    output:
    tuple val(meta), path("${prefix}/contigs.tsv")                         , emit: calls
    tuple val(meta), path("${prefix}/chunks.tsv")                          , emit: chunks
    tuple val(meta), path("${prefix}/viral.fasta")                         , emit: fasta
    tuple val(meta), path("${prefix}/viral_*.fastq.gz")                    , emit: fastq, optional: true
    tuple val(meta), path("${prefix}/pairs.tsv")                           , emit: pairs, optional: true
    tuple val(meta), path("${prefix}/regions.bed")                         , emit: bed
    tuple val(meta), path("${prefix}/regions.gff3")                        , emit: gff
    tuple val(meta), path("${prefix}/regions.fasta")                       , emit: regions
    tuple val(meta), path("${prefix}/scores.bedgraph")                     , emit: bedgraph
    tuple val(meta), path("${prefix}/prediction_results.txt")              , emit: predictions
    tuple val(meta), path("${prefix}/prediction_results_highestscore.csv") , emit: highestscore
    tuple val(meta), path("${prefix}/report.html")                         , emit: report
    tuple val(meta), path("${prefix}/run.json")                            , emit: json
    tuple val(meta), path("${prefix}/*_mqc.json")                          , emit: multiqc
    tuple val("${task.process}"), val('virnucpro'), eval("virnucpro --version | sed 's/.* //'"), topic: versions, emit: versions_virnucpro
    tuple val("${task.process}"), val('torch'), eval("python -c 'import torch; print(torch.__version__)'"), topic: versions, emit: versions_torch
    tuple val("${task.process}"), val('cuda'), eval('python -c "import torch; print(torch.version.cuda or \'no CUDA available\')"'), topic: versions, emit: versions_cuda

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? "--device cuda --gpus ${task.accelerator.request}" : '--device cpu --gpus 1'
    """
    # Samples, locks and caches stay in this work folder, which is the task's own. Dagster's records need a local disk.
    export HOME=\$PWD/home
    export VIRNUCPRO_MODELS=\$PWD/${models ?: 'home/models'}
    records=\$(mktemp -d)
    trap 'rm -rf "\$records"' EXIT

    virnucpro \\
        predict \\
        --home home \\
        --scratch "\$records" \\
        --sample "${prefix}" \\
        ${device} \\
        --out "${prefix}" \\
        ${args} \\
        ${sequences}

    rm -rf home
    """

    stub:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo ${args}

    mkdir -p ${prefix}
    touch ${prefix}/contigs.tsv
    touch ${prefix}/chunks.tsv
    touch ${prefix}/viral.fasta
    touch ${prefix}/regions.bed
    touch ${prefix}/regions.gff3
    touch ${prefix}/regions.fasta
    touch ${prefix}/scores.bedgraph
    touch ${prefix}/prediction_results.txt
    touch ${prefix}/prediction_results_highestscore.csv
    touch ${prefix}/report.html
    touch ${prefix}/run.json
    touch ${prefix}/virnucpro_calls_mqc.json
    touch ${prefix}/virnucpro_general_mqc.json
    """
}
