"""The table: every option of the project, declared once.

Validation, configuration keys, environment variables, flags and the reference page are derived from these
rows, and a test holds the signatures to them. To add an option, add a row here and a line in `keywords.py`,
then ``python -m remote_exec.options --write docs/reference/options.md``.
"""

from __future__ import annotations

from . import values
from .option_set import Door, OptionSet, option, optional

PLACE = "Where it runs"
ENVIRONMENT = "Environment"
CODE = "Local code"
JOB = "Jobs and limits"
GROUP = "Several processes or machines"
POOL = "Warm workers"
AGENT = "The agent and its store"
AWS = "SageMaker"

SETTINGS_OF_THE_AGENT = (Door.VARIABLE, Door.FILE)
OF_ONE_CALL = (Door.KEYWORD, Door.FLAG)
OBJECTS = (Door.KEYWORD,)

GROUPED = ("local", "ssh", "docker", "slurm", "ray", "kubernetes", "sagemaker")
LAUNCHED = ("local", "ssh", "docker", "slurm", "kubernetes", "sagemaker")
IMAGES = ("docker", "kubernetes", "sagemaker")
ON_SAGEMAKER = ("sagemaker",)


class Options(OptionSet):
    """Values of options, with their sources.

    Build it with `Options.from_keywords`, put one over another with `Options.over`, read values as
    attributes; an option that nothing set has its default. ``"cpus" in options`` tells whether it was set,
    ``options.source("cpus")`` where. Immutable.

    Example:
        >>> from remote_exec.options import Origin
        >>> call = Options.from_keywords(Origin.CALL, gpus=1)
        >>> both = call.over(Options.from_keywords(gpus=2, cpus=4))
        >>> both.gpus, both.cpus, both.memory, str(both.source("gpus"))
        (1, 4, None, 'call')
    """

    __slots__ = ()

    instance_type = option(
        values.instance_types(),
        default=("local",),
        group=PLACE,
        sagemaker=True,
        also=("instance", "machine", "backend", "instance_types"),
        help="The kind of machine to run on: a name from the configuration, `local`, or one of "
        "SageMaker's `ml.*`. A list means the first that can be had.",
    )
    cpus = optional(
        values.number(above=0),
        group=PLACE,
        also=("num_cpus", "ncpus", "cores", "cpu"),
        unset="no claim",
        help="CPU cores that one call claims on its host; fractions are allowed. A call waits while "
        "they are taken.",
    )
    memory = optional(
        values.size(),
        group=PLACE,
        also=("mem", "ram", "memory_mb"),
        unset="no claim, no limit",
        help="Memory that one call claims, and may not pass, in bytes or as a text such as `8 GB`.",
    )
    gpus = optional(
        values.gpus(),
        group=PLACE,
        also=("num_gpus", "ngpus", "gpu"),
        unset="no claim",
        help="GPUs that one call claims; it sees no others, and with 0 none at all. Unset, it sees those "
        "that its caller sees, claims none, and may meet others on them. Below 1, it claims a share of one, "
        "beside other calls that do, where the backend can share.",
    )
    gpu_type = optional(
        values.string(),
        group=PLACE,
        also=("accelerator_type", "gpu_model"),
        unset="any",
        help="Part of the name of the GPU that is wanted, such as `A100`.",
    )
    image_uri = optional(
        values.string(),
        group=PLACE,
        readers=IMAGES,
        must_read=True,
        sagemaker=True,
        also=("image", "docker_image", "container"),
        unset="the backend's own",
        help="The container image to run in.",
    )
    connection_timeout = option(
        values.number(above=0, unit="seconds"),
        default=60,
        group=PLACE,
        also=("connect_timeout",),
        help="Seconds after which a host that does not answer, or does not come back, counts as lost.",
    )

    dependencies = optional(
        values.dependencies(),
        group=ENVIRONMENT,
        sagemaker=True,
        also=("requirements", "packages", "pip", "pip_install"),
        unset="the caller's own environment; elsewhere what the function imports, in the versions here",
        help="What the function needs: the path of a `requirements.txt`, `pyproject.toml`, `uv.lock`, "
        "conda `environment.yml` or a script with a PEP 723 block, the word `auto_capture`, or a "
        "list of requirements or wheels.",
    )
    job_conda_env = optional(
        values.string(),
        group=ENVIRONMENT,
        sagemaker=True,
        also=("conda", "conda_env"),
        unset="none",
        help="The name or prefix of a conda environment of the host to run in.",
    )
    environment_variables = option(
        values.variables(),
        default=dict[str, str](),
        group=ENVIRONMENT,
        sagemaker=True,
        also=("env", "env_vars", "environment", "variables", "secrets"),
        help="Environment variables of the function, set before its first import. As one text: "
        "`NAME=value` lines, or a JSON object. Values whose names look secret are masked wherever "
        "they are shown.",
    )
    pre_execution_commands = option(
        values.strings(separators="\n", text="a list of shell commands"),
        default=(),
        group=ENVIRONMENT,
        sagemaker=True,
        also=("setup_commands", "commands"),
        help="Shell commands that run before the function, once for each attempt, in the job's folder. "
        "Not beside `pre_execution_script`.",
    )
    pre_execution_script = optional(
        values.path(),
        group=ENVIRONMENT,
        sagemaker=True,
        also=("setup_script", "setup"),
        unset="none",
        help="A shell script of this machine that runs before the function, as `pre_execution_commands` do.",
    )

    include_local_workdir = option(
        values.flag(),
        default=False,
        group=CODE,
        sagemaker=True,
        also=("workdir", "working_dir", "include_workdir"),
        help="Take the whole working directory along, not only the local modules that the function reaches.",
    )
    custom_file_filter = optional(
        values.file_filter(),
        group=CODE,
        sagemaker=True,
        also=("ignore", "exclude", "excludes", "file_filter"),
        unset="what git ignores, version control, caches and virtual environments stay at home",
        help="What else stays at home: a function like those that `shutil.ignore_patterns` makes, a "
        "`CustomFileFilter`, or a list of name patterns.",
    )
    bundle_size_limit = option(
        values.size(),
        default=500_000_000,
        group=CODE,
        also=("max_bundle_size", "size_limit"),
        help="Local code and files above this size are not sent but refused, with the biggest named.",
    )

    name = optional(
        values.job_name(longest=63),
        group=JOB,
        doors=OF_ONE_CALL,
        also=("job_name",),
        unset="made from job_name_prefix and an id",
        help="The job's name. A named call is durable: `get_future(name)` finds it from any later process.",
    )
    job_name_prefix = optional(
        values.job_name(longest=40),
        group=JOB,
        sagemaker=True,
        also=("base_job_name", "prefix"),
        unset="the function's name",
        help="What the names of jobs begin with.",
    )
    tags = option(
        values.tags(),
        default=(),
        group=JOB,
        sagemaker=True,
        also=("labels",),
        help="Pairs of texts that are kept with the job and shown in lists.",
    )
    detach = option(
        values.flag(),
        default=False,
        group=JOB,
        doors=OF_ONE_CALL,
        also=("background", "durable"),
        help="Make the call a job at once: it goes on when this process ends, which does not wait for it.",
    )
    cache = option(
        values.flag(),
        default=False,
        group=JOB,
        also=("cache_results", "memoize"),
        help="Give the stored result of an earlier call with the same source, modules, environment and "
        "arguments.",
    )
    max_runtime_in_seconds = optional(
        values.number(above=0, unit="seconds"),
        group=JOB,
        sagemaker=True,
        also=("timeout", "time_limit", "max_runtime", "timeout_seconds"),
        unset="no limit; a day on SageMaker",
        help="Seconds after which a running call is stopped and raises `MaxRuntimeExceeded`.",
    )
    max_retry_attempts = option(
        values.whole(minimum=0, maximum=30),
        default=0,
        group=JOB,
        sagemaker=True,
        also=("retries", "max_retries"),
        help="How often a call is run again after its machine or worker was lost. An exception of the "
        "function is never retried.",
    )
    max_parallel_jobs = optional(
        values.whole(minimum=1),
        group=JOB,
        sagemaker=True,
        also=("max_concurrency", "concurrency", "parallel"),
        unset="as many as the host has workers for",
        help="How many calls of one `RemoteExecutor`, or of one `map`, run at the same time; a group is one.",
    )
    log_size_limit = option(
        values.size(),
        default=50_000_000,
        group=JOB,
        also=("max_log_size", "log_limit"),
        help="How much of a job's output is kept; what comes after is counted, not kept.",
    )
    checkpoint_location = optional(
        values.checkpoint_location(),
        group=JOB,
        readers=("sagemaker",),
        must_read=True,
        also=("checkpoint", "checkpoint_s3_uri", "checkpoint_dir"),
        unset="none",
        help="Where the job's checkpoints are kept: a `CheckpointLocation`, or its address.",
    )

    instance_count = option(
        values.whole(minimum=1),
        default=1,
        group=GROUP,
        readers=GROUPED,
        must_read=True,
        sagemaker=True,
        also=("num_nodes", "nodes", "nnodes"),
        help="How many machines one call runs on; on this machine alone, how many times `nproc_per_node` workers.",
    )
    nproc_per_node = option(
        values.whole(minimum=1),
        default=1,
        group=GROUP,
        readers=LAUNCHED,
        must_read=True,
        sagemaker=True,
        also=("processes_per_node", "ntasks_per_node"),
        help="How many processes run the function on each machine at once, each with a rank. `cpus`, `memory` "
        "and `gpus` are claimed for each.",
    )
    use_torchrun = option(
        values.flag(),
        default=False,
        group=GROUP,
        readers=LAUNCHED,
        must_read=True,
        sagemaker=True,
        also=("torchrun",),
        help="Start the function by torchrun on every machine.",
    )
    use_mpirun = option(
        values.flag(),
        default=False,
        group=GROUP,
        readers=LAUNCHED,
        must_read=True,
        sagemaker=True,
        also=("mpirun", "mpi"),
        help="Start the function by Open MPI's mpirun, on one machine: `nproc_per_node` processes.",
    )
    return_all_ranks = option(
        values.flag(),
        default=False,
        group=GROUP,
        readers=LAUNCHED,
        must_read=True,
        also=("all_ranks", "gather"),
        help="Return a list of what all ranks returned, not what rank 0 did.",
    )

    keep_alive_period_in_seconds = option(
        values.number(unit="seconds"),
        default=300,
        group=POOL,
        sagemaker=True,
        also=("keep_alive", "keepalive", "scaledown_window", "ttl"),
        help="How long an idle worker stays warm for the next call. SageMaker's default is 0, since it "
        "bills for it.",
    )
    max_workers = optional(
        values.whole(minimum=1),
        group=POOL,
        also=("workers", "num_workers", "n_workers", "processes", "n_jobs"),
        unset="one for each CPU core of the host",
        help="The most workers that a pool may have.",
    )

    agent_idle_timeout_in_seconds = option(
        values.number(above=0, unit="seconds"),
        default=900,
        group=AGENT,
        doors=SETTINGS_OF_THE_AGENT,
        also=("idle_timeout", "agent_idle_timeout"),
        help="How long a host's agent stays without a client, a worker or a job before it stops by itself.",
    )
    quotas = option(
        values.quotas(),
        default=dict[str, float](),
        group=AGENT,
        doors=SETTINGS_OF_THE_AGENT,
        also=("quota", "limits"),
        help="The most `cpus`, `memory` and `gpus` that all calls together may hold on a host, and the "
        "most `jobs` that may be queued. A call that passes one raises `ResourceLimitExceeded`.",
    )
    cache_size_limit = option(
        values.size(),
        default=20_000_000_000,
        group=AGENT,
        doors=SETTINGS_OF_THE_AGENT,
        also=("max_cache_size",),
        help="How large a host's cache may grow; the least recently used goes first.",
    )
    retention_in_days = option(
        values.number(above=0, unit="days"),
        default=14,
        group=AGENT,
        doors=SETTINGS_OF_THE_AGENT,
        also=("retention", "keep_days"),
        help="How long ended jobs are kept with their results and logs.",
    )
    retention_size_limit = option(
        values.size(),
        default=10_000_000_000,
        group=AGENT,
        doors=SETTINGS_OF_THE_AGENT,
        also=("max_retention_size",),
        help="How much room the results and logs of ended jobs may take; the oldest go first.",
    )

    role = optional(
        values.string(),
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        also=("role_arn", "iam_role"),
        unset="that of the notebook",
        help="The IAM role, by name or ARN, that the job runs under.",
    )
    s3_root_uri = optional(
        values.string(pattern=r"s3://.+", text="an address that begins with s3://"),
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        also=("s3_uri", "bucket"),
        unset="the account's default bucket",
        help="Where code, arguments and results are put in S3.",
    )
    s3_kms_key = optional(
        values.string(),
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        also=("s3_kms_key_id",),
        unset="none",
        help="The KMS key that encrypts what is put in S3.",
    )
    volume_size = option(
        values.whole(minimum=1),
        default=30,
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        also=("disk_size", "disk"),
        help="The size of the machine's storage volume, in GB.",
    )
    volume_kms_key = optional(
        values.string(),
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        also=("volume_kms_key_id",),
        unset="none",
        help="The KMS key that encrypts the storage volume.",
    )
    subnets = option(
        values.strings(text="a list of subnet ids"),
        default=(),
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        help="The subnets that the job's machines join.",
    )
    security_group_ids = option(
        values.strings(text="a list of security group ids"),
        default=(),
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        also=("security_groups",),
        help="The security groups of the job's machines.",
    )
    encrypt_inter_container_traffic = option(
        values.flag(),
        default=False,
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        help="Encrypt the traffic between the job's machines.",
    )
    enable_network_isolation = option(
        values.flag(),
        default=False,
        group=AWS,
        readers=IMAGES,
        must_read=True,
        also=("network_isolation", "no_network"),
        help="Run the function's container without a network.",
    )
    use_spot_instances = option(
        values.flag(),
        default=False,
        group=AWS,
        readers=("kubernetes", "sagemaker"),
        sagemaker=True,
        also=("spot", "preemptible"),
        help="Run on spare machines, which cost less and may be taken away.",
    )
    max_wait_time_in_seconds = optional(
        values.number(above=0, unit="seconds"),
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        also=("max_wait", "wait_timeout"),
        unset="as long as it takes",
        help="How long a spot job may take altogether, waiting included.",
    )
    spark_config = optional(
        values.instance_of(text="a SparkConfig of SageMaker"),
        group=AWS,
        readers=ON_SAGEMAKER,
        must_read=True,
        sagemaker=True,
        doors=OBJECTS,
        also=("spark",),
        unset="none",
        help="Run the function as a Spark application with this configuration. Not beside `image_uri`.",
    )
    sagemaker_session = optional(
        values.instance_of(text="a Session of SageMaker"),
        group=AWS,
        readers=ON_SAGEMAKER,
        sagemaker=True,
        doors=OBJECTS,
        also=("session",),
        unset="one made from the AWS configuration",
        help="The session that calls AWS.",
    )
