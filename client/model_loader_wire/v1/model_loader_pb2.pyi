from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNKNOWN: _ClassVar[DataType]
    DATA_TYPE_INT64: _ClassVar[DataType]
    DATA_TYPE_UINT64: _ClassVar[DataType]
    DATA_TYPE_FLOAT64: _ClassVar[DataType]
    DATA_TYPE_INT32: _ClassVar[DataType]
    DATA_TYPE_UINT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_INT16: _ClassVar[DataType]
    DATA_TYPE_UINT16: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_INT8: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_BOOL: _ClassVar[DataType]
    DATA_TYPE_STRING: _ClassVar[DataType]
DATA_TYPE_UNKNOWN: DataType
DATA_TYPE_INT64: DataType
DATA_TYPE_UINT64: DataType
DATA_TYPE_FLOAT64: DataType
DATA_TYPE_INT32: DataType
DATA_TYPE_UINT32: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_INT16: DataType
DATA_TYPE_UINT16: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_INT8: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_BOOL: DataType
DATA_TYPE_STRING: DataType

class OpenSessionRequest(_message.Message):
    __slots__ = ("protocol_version", "origin")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    origin: str
    def __init__(self, protocol_version: _Optional[int] = ..., origin: _Optional[str] = ...) -> None: ...

class SessionEvent(_message.Message):
    __slots__ = ("opened", "lost")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    opened: Session
    lost: ModelState
    def __init__(self, opened: _Optional[_Union[Session, _Mapping]] = ..., lost: _Optional[_Union[ModelState, _Mapping]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("token", "origin", "service_version", "limits", "layers")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SERVICE_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    origin: str
    service_version: str
    limits: Limits
    layers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, token: _Optional[bytes] = ..., origin: _Optional[str] = ..., service_version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., layers: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("memory_bytes", "cpu_percent", "cpu_seconds", "threads", "processes", "model_bytes", "tensor_bytes", "output_bytes", "models_per_origin", "load_seconds", "compute_seconds", "loads_per_minute", "upload_bytes", "calls_in_flight", "bytes_in_flight")
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    TENSOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODELS_PER_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOADS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    CALLS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    BYTES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    memory_bytes: int
    cpu_percent: int
    cpu_seconds: int
    threads: int
    processes: int
    model_bytes: int
    tensor_bytes: int
    output_bytes: int
    models_per_origin: int
    load_seconds: float
    compute_seconds: float
    loads_per_minute: int
    upload_bytes: int
    calls_in_flight: int
    bytes_in_flight: int
    def __init__(self, memory_bytes: _Optional[int] = ..., cpu_percent: _Optional[int] = ..., cpu_seconds: _Optional[int] = ..., threads: _Optional[int] = ..., processes: _Optional[int] = ..., model_bytes: _Optional[int] = ..., tensor_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., models_per_origin: _Optional[int] = ..., load_seconds: _Optional[float] = ..., compute_seconds: _Optional[float] = ..., loads_per_minute: _Optional[int] = ..., upload_bytes: _Optional[int] = ..., calls_in_flight: _Optional[int] = ..., bytes_in_flight: _Optional[int] = ...) -> None: ...

class FormatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FormatsReply(_message.Message):
    __slots__ = ("formats",)
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    formats: _containers.RepeatedCompositeFieldContainer[Format]
    def __init__(self, formats: _Optional[_Iterable[_Union[Format, _Mapping]]] = ...) -> None: ...

class Format(_message.Message):
    __slots__ = ("name", "versions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    versions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., versions: _Optional[_Iterable[str]] = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("header", "chunk", "trailer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    header: LoadHeader
    chunk: bytes
    trailer: LoadTrailer
    def __init__(self, header: _Optional[_Union[LoadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ..., trailer: _Optional[_Union[LoadTrailer, _Mapping]] = ...) -> None: ...

class LoadHeader(_message.Message):
    __slots__ = ("model_format", "size", "num_threads", "device_preference", "power_preference", "limits", "required_layers", "relayed", "label", "offer", "device_options")
    MODEL_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    POWER_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_LAYERS_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    DEVICE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model_format: str
    size: int
    num_threads: int
    device_preference: str
    power_preference: str
    limits: Limits
    required_layers: _containers.RepeatedScalarFieldContainer[str]
    relayed: bool
    label: str
    offer: bytes
    device_options: DeviceOptions
    def __init__(self, model_format: _Optional[str] = ..., size: _Optional[int] = ..., num_threads: _Optional[int] = ..., device_preference: _Optional[str] = ..., power_preference: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., required_layers: _Optional[_Iterable[str]] = ..., relayed: bool = ..., label: _Optional[str] = ..., offer: _Optional[bytes] = ..., device_options: _Optional[_Union[DeviceOptions, _Mapping]] = ...) -> None: ...

class DeviceOptions(_message.Message):
    __slots__ = ("accelerator_name", "execution_preference", "allow_fp16", "max_number_delegated_partitions", "min_nodes_per_partition", "disallow_nnapi_cpu", "cache_token")
    ACCELERATOR_NAME_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FP16_FIELD_NUMBER: _ClassVar[int]
    MAX_NUMBER_DELEGATED_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    MIN_NODES_PER_PARTITION_FIELD_NUMBER: _ClassVar[int]
    DISALLOW_NNAPI_CPU_FIELD_NUMBER: _ClassVar[int]
    CACHE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    accelerator_name: str
    execution_preference: str
    allow_fp16: bool
    max_number_delegated_partitions: int
    min_nodes_per_partition: int
    disallow_nnapi_cpu: bool
    cache_token: bytes
    def __init__(self, accelerator_name: _Optional[str] = ..., execution_preference: _Optional[str] = ..., allow_fp16: bool = ..., max_number_delegated_partitions: _Optional[int] = ..., min_nodes_per_partition: _Optional[int] = ..., disallow_nnapi_cpu: bool = ..., cache_token: _Optional[bytes] = ...) -> None: ...

class LoadTrailer(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    def __init__(self, sha256: _Optional[bytes] = ...) -> None: ...

class FindModelRequest(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    def __init__(self, sha256: _Optional[bytes] = ...) -> None: ...

class FindModelReply(_message.Message):
    __slots__ = ("offer",)
    OFFER_FIELD_NUMBER: _ClassVar[int]
    offer: bytes
    def __init__(self, offer: _Optional[bytes] = ...) -> None: ...

class FindNamedModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class FindNamedModelReply(_message.Message):
    __slots__ = ("offer", "model")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    offer: bytes
    model: NamedModel
    def __init__(self, offer: _Optional[bytes] = ..., model: _Optional[_Union[NamedModel, _Mapping]] = ...) -> None: ...

class ListNamedModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNamedModelsReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[NamedModel]
    def __init__(self, models: _Optional[_Iterable[_Union[NamedModel, _Mapping]]] = ...) -> None: ...

class NamedModel(_message.Message):
    __slots__ = ("name", "version", "sha256", "size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    sha256: bytes
    size: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., sha256: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class LoadReply(_message.Message):
    __slots__ = ("model_id", "sha256", "description", "isolation", "limits")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    sha256: bytes
    description: Description
    isolation: Isolation
    limits: Limits
    def __init__(self, model_id: _Optional[str] = ..., sha256: _Optional[bytes] = ..., description: _Optional[_Union[Description, _Mapping]] = ..., isolation: _Optional[_Union[Isolation, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("signatures", "runtime", "kernels", "note", "threads", "keeps_state")
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    KEEPS_STATE_FIELD_NUMBER: _ClassVar[int]
    signatures: _containers.RepeatedCompositeFieldContainer[Signature]
    runtime: str
    kernels: str
    note: str
    threads: int
    keeps_state: bool
    def __init__(self, signatures: _Optional[_Iterable[_Union[Signature, _Mapping]]] = ..., runtime: _Optional[str] = ..., kernels: _Optional[str] = ..., note: _Optional[str] = ..., threads: _Optional[int] = ..., keeps_state: bool = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("name", "inputs", "outputs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    def __init__(self, name: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorInfo, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorInfo, _Mapping]]] = ...) -> None: ...

class TensorInfo(_message.Message):
    __slots__ = ("name", "data_type", "rank_known", "dimensions", "byte_length")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    RANK_KNOWN_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    BYTE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    name: str
    data_type: DataType
    rank_known: bool
    dimensions: _containers.RepeatedScalarFieldContainer[int]
    byte_length: int
    def __init__(self, name: _Optional[str] = ..., data_type: _Optional[_Union[DataType, str]] = ..., rank_known: bool = ..., dimensions: _Optional[_Iterable[int]] = ..., byte_length: _Optional[int] = ...) -> None: ...

class Isolation(_message.Message):
    __slots__ = ("layers", "missing", "memory_held_by", "worker_pid", "shared", "devices")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    MEMORY_HELD_BY_FIELD_NUMBER: _ClassVar[int]
    WORKER_PID_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedScalarFieldContainer[str]
    missing: _containers.RepeatedCompositeFieldContainer[MissingLayer]
    memory_held_by: str
    worker_pid: int
    shared: bool
    devices: _containers.RepeatedCompositeFieldContainer[DeviceGrants]
    def __init__(self, layers: _Optional[_Iterable[str]] = ..., missing: _Optional[_Iterable[_Union[MissingLayer, _Mapping]]] = ..., memory_held_by: _Optional[str] = ..., worker_pid: _Optional[int] = ..., shared: bool = ..., devices: _Optional[_Iterable[_Union[DeviceGrants, _Mapping]]] = ...) -> None: ...

class DeviceGrants(_message.Message):
    __slots__ = ("device", "grants")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    device: str
    grants: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, device: _Optional[str] = ..., grants: _Optional[_Iterable[str]] = ...) -> None: ...

class MissingLayer(_message.Message):
    __slots__ = ("layer", "reason")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    layer: str
    reason: str
    def __init__(self, layer: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class InspectReply(_message.Message):
    __slots__ = ("summary", "sha256", "isolation")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    summary: str
    sha256: bytes
    isolation: Isolation
    def __init__(self, summary: _Optional[str] = ..., sha256: _Optional[bytes] = ..., isolation: _Optional[_Union[Isolation, _Mapping]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("data_type", "dimensions", "data")
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    data_type: DataType
    dimensions: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, data_type: _Optional[_Union[DataType, str]] = ..., dimensions: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ComputeRequest(_message.Message):
    __slots__ = ("model_id", "signature", "inputs")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    signature: int
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, model_id: _Optional[str] = ..., signature: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class ComputeReply(_message.Message):
    __slots__ = ("outputs", "queue_ns", "compute_ns")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NS_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    queue_ns: int
    compute_ns: int
    def __init__(self, outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., queue_ns: _Optional[int] = ..., compute_ns: _Optional[int] = ...) -> None: ...

class ResetRequest(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class ResetReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CloseModelRequest(_message.Message):
    __slots__ = ("model_id", "deadline_passed")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_PASSED_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    deadline_passed: bool
    def __init__(self, model_id: _Optional[str] = ..., deadline_passed: bool = ...) -> None: ...

class CloseModelReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model_id", "wait_seconds")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    wait_seconds: float
    def __init__(self, model_id: _Optional[str] = ..., wait_seconds: _Optional[float] = ...) -> None: ...

class ModelState(_message.Message):
    __slots__ = ("model_id", "lost", "detail")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    lost: bool
    detail: ErrorDetail
    def __init__(self, model_id: _Optional[str] = ..., lost: bool = ..., detail: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...

class GetDelegationRequest(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class GetDelegationReply(_message.Message):
    __slots__ = ("delegation",)
    DELEGATION_FIELD_NUMBER: _ClassVar[int]
    delegation: Delegation
    def __init__(self, delegation: _Optional[_Union[Delegation, _Mapping]] = ...) -> None: ...

class Delegation(_message.Message):
    __slots__ = ("nodes", "partitions", "devices", "reasons", "steps", "coarse")
    class Partition(_message.Message):
        __slots__ = ("device", "nodes", "operators", "compile_seconds", "cache", "run_seconds")
        class OperatorsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: int
            def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
        DEVICE_FIELD_NUMBER: _ClassVar[int]
        NODES_FIELD_NUMBER: _ClassVar[int]
        OPERATORS_FIELD_NUMBER: _ClassVar[int]
        COMPILE_SECONDS_FIELD_NUMBER: _ClassVar[int]
        CACHE_FIELD_NUMBER: _ClassVar[int]
        RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
        device: str
        nodes: int
        operators: _containers.ScalarMap[str, int]
        compile_seconds: float
        cache: str
        run_seconds: float
        def __init__(self, device: _Optional[str] = ..., nodes: _Optional[int] = ..., operators: _Optional[_Mapping[str, int]] = ..., compile_seconds: _Optional[float] = ..., cache: _Optional[str] = ..., run_seconds: _Optional[float] = ...) -> None: ...
    class Device(_message.Message):
        __slots__ = ("name", "type", "version", "feature_level")
        NAME_FIELD_NUMBER: _ClassVar[int]
        TYPE_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
        name: str
        type: str
        version: str
        feature_level: int
        def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., version: _Optional[str] = ..., feature_level: _Optional[int] = ...) -> None: ...
    class Reason(_message.Message):
        __slots__ = ("device", "operator", "count", "reason")
        DEVICE_FIELD_NUMBER: _ClassVar[int]
        OPERATOR_FIELD_NUMBER: _ClassVar[int]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        device: str
        operator: str
        count: int
        reason: str
        def __init__(self, device: _Optional[str] = ..., operator: _Optional[str] = ..., count: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
    NODES_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    COARSE_FIELD_NUMBER: _ClassVar[int]
    nodes: int
    partitions: _containers.RepeatedCompositeFieldContainer[Delegation.Partition]
    devices: _containers.RepeatedCompositeFieldContainer[Delegation.Device]
    reasons: _containers.RepeatedCompositeFieldContainer[Delegation.Reason]
    steps: _containers.RepeatedScalarFieldContainer[str]
    coarse: bool
    def __init__(self, nodes: _Optional[int] = ..., partitions: _Optional[_Iterable[_Union[Delegation.Partition, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[Delegation.Device, _Mapping]]] = ..., reasons: _Optional[_Iterable[_Union[Delegation.Reason, _Mapping]]] = ..., steps: _Optional[_Iterable[str]] = ..., coarse: bool = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelRow]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelRow, _Mapping]]] = ...) -> None: ...

class ModelRow(_message.Message):
    __slots__ = ("model_id", "origin", "label", "sha256", "worker_pid", "isolation", "memory_bytes", "cpu_seconds", "calls", "age_seconds", "runtime", "limits")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WORKER_PID_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    origin: str
    label: str
    sha256: bytes
    worker_pid: int
    isolation: Isolation
    memory_bytes: int
    cpu_seconds: float
    calls: int
    age_seconds: float
    runtime: str
    limits: Limits
    def __init__(self, model_id: _Optional[str] = ..., origin: _Optional[str] = ..., label: _Optional[str] = ..., sha256: _Optional[bytes] = ..., worker_pid: _Optional[int] = ..., isolation: _Optional[_Union[Isolation, _Mapping]] = ..., memory_bytes: _Optional[int] = ..., cpu_seconds: _Optional[float] = ..., calls: _Optional[int] = ..., age_seconds: _Optional[float] = ..., runtime: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("cause", "message", "limit", "value", "maximum", "last_words", "model_lost")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    LAST_WORDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_LOST_FIELD_NUMBER: _ClassVar[int]
    cause: str
    message: str
    limit: str
    value: float
    maximum: float
    last_words: str
    model_lost: bool
    def __init__(self, cause: _Optional[str] = ..., message: _Optional[str] = ..., limit: _Optional[str] = ..., value: _Optional[float] = ..., maximum: _Optional[float] = ..., last_words: _Optional[str] = ..., model_lost: bool = ...) -> None: ...
