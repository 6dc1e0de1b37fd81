process VIRNUCPRO_DOWNLOADMODELS {
    tag "${profile}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'https://depot.galaxyproject.org/singularity/virnucpro:0.1.0--pyhdfd78af_0'
        : 'quay.io/biocontainers/virnucpro:0.1.0--pyhdfd78af_0'}"

    input:
    val profile

    output:
    path "models"                                                                                         , emit: models
    tuple val("${task.process}"), val('virnucpro'), eval("virnucpro --version | sed 's/.* //'"), topic: versions, emit: versions_virnucpro

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    """
    export HOME=\$PWD/home
    export VIRNUCPRO_MODELS=\$PWD/models

    virnucpro \\
        models fetch \\
        --home home \\
        --profile ${profile} \\
        ${args}

    rm -rf home
    """

    stub:
    def args = task.ext.args ?: ''
    """
    echo ${args}

    mkdir models
    touch models/model.safetensors
    """
}
