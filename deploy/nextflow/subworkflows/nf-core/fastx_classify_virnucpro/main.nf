include { VIRNUCPRO_DOWNLOADMODELS } from '../../../modules/nf-core/virnucpro/downloadmodels/main'
include { VIRNUCPRO_PREDICT        } from '../../../modules/nf-core/virnucpro/predict/main'

workflow FASTX_CLASSIFY_VIRNUCPRO {

    take:
    ch_sequences // channel: [ val(meta), path(fasta) ] or [ val(meta), [ path(fastq_1), path(fastq_2) ] ]
    val_models   // path: a model store; [] to download that of val_profile
    val_profile  // string: profile of the models, such as esm2-3b

    main:
    if (val_models) {
        ch_models = channel.value(file(val_models, checkIfExists: true))
    }
    else {
        VIRNUCPRO_DOWNLOADMODELS(val_profile)
        ch_models = VIRNUCPRO_DOWNLOADMODELS.out.models
    }

    VIRNUCPRO_PREDICT(ch_sequences, ch_models)

    emit:
    calls   = VIRNUCPRO_PREDICT.out.calls   // channel: [ val(meta), path(tsv) ]
    fasta   = VIRNUCPRO_PREDICT.out.fasta   // channel: [ val(meta), path(fasta) ]
    fastq   = VIRNUCPRO_PREDICT.out.fastq   // channel: [ val(meta), [ path(fastq) ] ]
    bed     = VIRNUCPRO_PREDICT.out.bed     // channel: [ val(meta), path(bed) ]
    report  = VIRNUCPRO_PREDICT.out.report  // channel: [ val(meta), path(html) ]
    multiqc = VIRNUCPRO_PREDICT.out.multiqc // channel: [ val(meta), [ path(json) ] ]
}
