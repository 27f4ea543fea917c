from model_loader_wire.v1 import model_loader_pb2 as _model_loader_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("hello", "receive_channel", "offer_model")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    OFFER_MODEL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    receive_channel: ReceiveChannel
    offer_model: OfferModel
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., receive_channel: _Optional[_Union[ReceiveChannel, _Mapping]] = ..., offer_model: _Optional[_Union[OfferModel, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "origin")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    origin: str
    def __init__(self, protocol_version: _Optional[int] = ..., origin: _Optional[str] = ...) -> None: ...

class ReceiveChannel(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class OfferModel(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class AttachReply(_message.Message):
    __slots__ = ("welcome", "channel", "error", "offered")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OFFERED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    channel: Channel
    error: _model_loader_pb2.ErrorDetail
    offered: Offered
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., channel: _Optional[_Union[Channel, _Mapping]] = ..., error: _Optional[_Union[_model_loader_pb2.ErrorDetail, _Mapping]] = ..., offered: _Optional[_Union[Offered, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session", "grpc_path")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    GRPC_PATH_FIELD_NUMBER: _ClassVar[int]
    session: _model_loader_pb2.Session
    grpc_path: str
    def __init__(self, session: _Optional[_Union[_model_loader_pb2.Session, _Mapping]] = ..., grpc_path: _Optional[str] = ...) -> None: ...

class Channel(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class Offered(_message.Message):
    __slots__ = ("offer",)
    OFFER_FIELD_NUMBER: _ClassVar[int]
    offer: bytes
    def __init__(self, offer: _Optional[bytes] = ...) -> None: ...
