"""Steps as Slurm jobs: what a job asks for, how it is submitted and watched, and the process that runs in it."""
