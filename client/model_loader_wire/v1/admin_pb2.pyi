from model_loader_wire.v1 import model_loader_pb2 as _model_loader_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("version", "pid", "uid", "directory", "runtime", "uptime_seconds", "ready", "draining", "isolation", "layers", "missing", "memory_held_by", "total_memory_bytes", "workers", "service_memory_bytes", "service_cpu_seconds", "open_descriptors", "users", "devices")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    MEMORY_HELD_BY_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SERVICE_CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    version: str
    pid: int
    uid: int
    directory: str
    runtime: str
    uptime_seconds: float
    ready: bool
    draining: bool
    isolation: str
    layers: _containers.RepeatedScalarFieldContainer[str]
    missing: _containers.RepeatedCompositeFieldContainer[_model_loader_pb2.MissingLayer]
    memory_held_by: str
    total_memory_bytes: int
    workers: int
    service_memory_bytes: int
    service_cpu_seconds: float
    open_descriptors: int
    users: _containers.RepeatedCompositeFieldContainer[UserStatus]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceStatus]
    def __init__(self, version: _Optional[str] = ..., pid: _Optional[int] = ..., uid: _Optional[int] = ..., directory: _Optional[str] = ..., runtime: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., ready: bool = ..., draining: bool = ..., isolation: _Optional[str] = ..., layers: _Optional[_Iterable[str]] = ..., missing: _Optional[_Iterable[_Union[_model_loader_pb2.MissingLayer, _Mapping]]] = ..., memory_held_by: _Optional[str] = ..., total_memory_bytes: _Optional[int] = ..., workers: _Optional[int] = ..., service_memory_bytes: _Optional[int] = ..., service_cpu_seconds: _Optional[float] = ..., open_descriptors: _Optional[int] = ..., users: _Optional[_Iterable[_Union[UserStatus, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceStatus, _Mapping]]] = ...) -> None: ...

class DeviceStatus(_message.Message):
    __slots__ = ("device", "tested", "disabled")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TESTED_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    device: str
    tested: bool
    disabled: str
    def __init__(self, device: _Optional[str] = ..., tested: bool = ..., disabled: _Optional[str] = ...) -> None: ...

class UserStatus(_message.Message):
    __slots__ = ("user", "sessions", "models", "loading", "memory_bytes", "cpu_seconds", "client")
    USER_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    user: int
    sessions: int
    models: int
    loading: int
    memory_bytes: int
    cpu_seconds: float
    client: str
    def __init__(self, user: _Optional[int] = ..., sessions: _Optional[int] = ..., models: _Optional[int] = ..., loading: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., cpu_seconds: _Optional[float] = ..., client: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[AdminRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[AdminRow, _Mapping]]] = ...) -> None: ...

class AdminRow(_message.Message):
    __slots__ = ("user", "model", "client")
    USER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    user: int
    model: _model_loader_pb2.ModelRow
    client: str
    def __init__(self, user: _Optional[int] = ..., model: _Optional[_Union[_model_loader_pb2.ModelRow, _Mapping]] = ..., client: _Optional[str] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("follow", "all")
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    follow: bool
    all: bool
    def __init__(self, follow: bool = ..., all: bool = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "unix_seconds", "kind", "level", "request", "facts", "left_out")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    number: int
    unix_seconds: float
    kind: str
    level: str
    request: str
    facts: _containers.RepeatedCompositeFieldContainer[Fact]
    left_out: int
    def __init__(self, number: _Optional[int] = ..., unix_seconds: _Optional[float] = ..., kind: _Optional[str] = ..., level: _Optional[str] = ..., request: _Optional[str] = ..., facts: _Optional[_Iterable[_Union[Fact, _Mapping]]] = ..., left_out: _Optional[int] = ...) -> None: ...

class Fact(_message.Message):
    __slots__ = ("name", "text", "whole", "number", "flag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    whole: int
    number: float
    flag: bool
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ..., whole: _Optional[int] = ..., number: _Optional[float] = ..., flag: bool = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("model_id", "user", "origin", "client")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    user: int
    origin: str
    client: str
    def __init__(self, model_id: _Optional[str] = ..., user: _Optional[int] = ..., origin: _Optional[str] = ..., client: _Optional[str] = ...) -> None: ...

class KillReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: int
    def __init__(self, models: _Optional[int] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("seconds", "cancel")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    cancel: bool
    def __init__(self, seconds: _Optional[float] = ..., cancel: bool = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: int
    def __init__(self, models: _Optional[int] = ...) -> None: ...

class ShowLimitsRequest(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: str
    def __init__(self, policy: _Optional[str] = ...) -> None: ...

class LimitList(_message.Message):
    __slots__ = ("limits", "policies")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[LimitRow]
    policies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, limits: _Optional[_Iterable[_Union[LimitRow, _Mapping]]] = ..., policies: _Optional[_Iterable[str]] = ...) -> None: ...

class LimitRow(_message.Message):
    __slots__ = ("name", "value", "at_start", "settable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    AT_START_FIELD_NUMBER: _ClassVar[int]
    SETTABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    at_start: float
    settable: bool
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., at_start: _Optional[float] = ..., settable: bool = ...) -> None: ...

class SetLimitsRequest(_message.Message):
    __slots__ = ("limits", "policy")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[LimitValue]
    policy: str
    def __init__(self, limits: _Optional[_Iterable[_Union[LimitValue, _Mapping]]] = ..., policy: _Optional[str] = ...) -> None: ...

class LimitValue(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
