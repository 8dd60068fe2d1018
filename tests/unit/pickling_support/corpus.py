# ruff: noqa: N818, PIE796, PT017, PT018, RUF012, RUF023, S318, UP045
"""A script of everyday and awkward things, sent from `__main__` to a process that must find them whole.

``corpus.py RUNTIME_FOLDER [FOLDER...]`` prints one JSON object: name of each check, and "" or what went
wrong. Every function ``check_…`` runs in the far process; every ``back_…`` runs there too, and ``home_…``
looks at what came back.
"""

import abc
import collections
import concurrent.futures
import contextlib
import dataclasses
import enum
import functools
import inspect
import json
import logging
import os.path
import re
import sys
import traceback
import typing
import weakref
import xml.dom.minidom
from typing import ClassVar, Generic, NamedTuple, NewType, ParamSpec, Protocol, TypeVar

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

T = TypeVar("T")
P = ParamSpec("P")
UserId = NewType("UserId", int)
log = logging.getLogger("corpus")
pattern = re.compile(r"(\d+)-(\d+)", re.ASCII)
RATE = 0.5


# functions


def is_even(n):
    return n == 0 or is_odd(n - 1)


def is_odd(n):
    return n != 0 and is_even(n - 1)


def check_mutual_recursion():
    assert is_even(10) and not is_even(7)
    assert is_even.__globals__ is is_odd.__globals__ is check_mutual_recursion.__globals__


@functools.lru_cache(maxsize=77, typed=True)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


fibonacci(20)


def check_cached_functions_keep_parameters_and_lose_the_cache():
    assert fibonacci.cache_parameters() == {"maxsize": 77, "typed": True}
    assert fibonacci.cache_info().currsize == 0
    assert fibonacci(60) == 1548008755920 and fibonacci.cache_info().hits > 50
    assert fibonacci.__name__ == "fibonacci" and fibonacci.__wrapped__.__globals__["fibonacci"] is fibonacci


@functools.singledispatch
def area(shape):
    """Square units."""
    raise TypeError(type(shape))


@area.register
def _(shape: float):
    return shape * shape


@area.register(tuple)
def _(shape):
    return area(float(shape[0])) / shape[0] * shape[1]


def check_single_dispatch():
    assert area(2.0) == 4 and area((2, 3)) == 6
    assert (
        area.__name__ == "area"
        and area.__doc__ == "Square units."
        and set(area.registry) == {object, float, tuple}
    )
    try:
        area("")
    except TypeError as error:
        assert error.args == (str,)
    area.register(str, len)
    assert area("four") == 4


def make_counter():
    count = 0

    def increment():
        nonlocal count
        count += 1
        return count

    def read():
        return count

    def factorial(n):
        return n * factorial(n - 1) if n > 1 else 1

    return increment, read, factorial


increment, read, factorial = make_counter()
increment()


def check_closures_share_their_cells():
    increment()
    assert read() == 2 and factorial(5) == 120


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return function(*args, **kwargs)

    wrapper.calls = 0
    return wrapper


@logged
def add(a, b: int = 2, *, c=3):
    """Add."""
    return a + b + c


def check_decorated_functions():
    assert add(1) == 6 and add.calls == 1 and add.__doc__ == "Add."
    assert str(inspect.signature(add)) == "(a, b: int = 2, *, c=3)"


add_ten = functools.partial(add, 10, c=0)
double = lambda x: 2 * x  # noqa: E731


def check_partials_and_lambdas():
    assert add_ten(b=1) == 11 and list(map(double, [1, 2])) == [2, 4]


def check_submodules_reached_as_attributes():
    assert concurrent.futures.ThreadPoolExecutor.__name__ == "ThreadPoolExecutor"

    def inside():
        return xml.dom.minidom.parseString("<a/>").documentElement.tagName

    assert inside() == "a" and os.path.basename("a/b") == "b"


def check_class_bodies_in_functions_see_globals():
    class Local:
        rate = RATE
        doubled = [RATE for _ in range(2)]

    assert Local.rate == 0.5 and Local.doubled == [0.5, 0.5]


class OnlyAnnotated:
    pass


def annotated(
    a: "OnlyAnnotated", b: "typing.Optional[OnlyAnnotated]" = None, *c: "list[OnlyAnnotated]"
) -> "UserId":
    pass


def evaluated(a: OnlyAnnotated, b: typing.List["OnlyAnnotated"]) -> "Node":  # noqa: UP006
    pass


def check_names_used_in_annotations_only():
    hints = typing.get_type_hints(annotated)
    assert hints["a"].__name__ == "OnlyAnnotated" and hints["return"] is annotated.__globals__["UserId"]
    hints = typing.get_type_hints(evaluated)
    assert hints["a"] is typing.get_type_hints(annotated)["a"] and hints["return"].__name__ == "Node"


def check_loggers_patterns_and_builtins():
    assert log is logging.getLogger("corpus") and pattern.match("1-2").groups() == ("1", "2")
    assert len([type(None), type(...), print]) == 3


@contextlib.contextmanager
def opened(name):
    yield name


async def asynchronous():
    return 3


def generating(n):
    yield from range(n)


def check_generators_and_coroutines_functions():
    with opened("a") as name:
        assert name == "a"
    assert list(generating(3)) == [0, 1, 2] and inspect.iscoroutinefunction(asynchronous)


def check_source_and_file_names():
    assert check_source_and_file_names.__code__.co_filename.endswith("corpus.py")
    assert "def check_source_and_file_names" in inspect.getsource(check_source_and_file_names)
    nested = [const for const in make_counter.__code__.co_consts if inspect.iscode(const)]
    assert all(code.co_filename.endswith("corpus.py") for code in nested)
    try:
        area(None)  # a line to be found
    except TypeError as error:
        assert "area(None)  # a line to be found" in "".join(traceback.format_exception(error))


# classes


class Slotted:
    __slots__ = ("a", "__private")

    def __init__(self):
        self.a, self.__private = 1, 2

    def private(self):
        return self.__private


class SlottedChild(Slotted):
    __slots__ = ("__weakref__", "b")

    def __init__(self):
        super().__init__()
        self.b = 3


class SlottedWithDict(Slotted):
    __slots__ = "__dict__"


class OneSlot:
    __slots__ = "only"


slotted_child = SlottedChild()


def check_slots():
    for made in (SlottedChild(), slotted_child):
        assert not hasattr(made, "__dict__") and made.private() == 2 and made.b == 3
        assert weakref.ref(made)() is made and made.a == 1
    try:
        slotted_child.c = 1
    except AttributeError:
        pass
    else:
        raise AssertionError("slots are open")
    with_dict = SlottedWithDict()
    with_dict.extra = 1
    assert vars(with_dict) == {"extra": 1}
    one = OneSlot()
    one.only = 1
    assert one.only == 1 and not hasattr(one, "__dict__")


@dataclasses.dataclass
class Node:
    value: int
    children: "list[Node]" = dataclasses.field(default_factory=list)
    kind: ClassVar[str] = "node"
    _: dataclasses.KW_ONLY
    name: str = "x"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Point:
    x: float
    y: float = 0.0

    def moved(self, by):
        return dataclasses.replace(self, x=self.x + by)


@dataclasses.dataclass
class Point3(Node):
    z: int = 0


point = Point(1.0)


def check_dataclasses():
    assert Node(1) == Node(1, [], name="x") and Node.kind == "node"
    fields = {field.name: field for field in dataclasses.fields(Node)}
    assert fields["value"].default is dataclasses.MISSING and fields["children"].default_factory is list

    @dataclasses.dataclass
    class Child(Node):
        extra: int = 3

    assert Child(1, name="n").extra == 3 and Point3(1, z=3).z == 3
    assert point.moved(1) == Point(2.0) and not hasattr(point, "__dict__") and Point(1) < Point(2)
    assert typing.get_type_hints(Node)["children"] == list[Node]
    try:
        point.x = 1
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise AssertionError("not frozen")


class Color(enum.Enum):
    RED = 1
    GREEN = 2
    CRIMSON = 1

    @property
    def pretty(self):
        return self.name.title()

    @classmethod
    def _missing_(cls, value):
        return cls.RED


class Planet(enum.Enum):
    EARTH = (5.97, 6.37)
    MARS = (0.64, 3.39)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius


class Status(int, enum.Enum):
    def __new__(cls, code, phrase):
        made = int.__new__(cls, code)
        made._value_ = code
        made.phrase = phrase
        return made

    OK = 200, "fine"
    GONE = 410, "gone"


class Flags(enum.IntFlag):
    A = enum.auto()
    B = enum.auto()
    AB = A | B


class Text(str, enum.Enum):
    ONE = "one"


green = Color.GREEN


def check_enums():
    assert green is Color.GREEN and Color(2) is green and green.pretty == "Green"
    assert Color.CRIMSON is Color.RED and Color["CRIMSON"] is Color.RED and Color(99) is Color.RED
    assert list(Color) == [Color.RED, Color.GREEN]
    assert Planet.MARS.mass == 0.64 and Planet((5.97, 6.37)) is Planet.EARTH
    assert Status(410) is Status.GONE and Status.GONE.phrase == "gone" and Status.OK == 200
    assert Flags.A | Flags.B == Flags.AB and Flags(3) is Flags.AB and Text("one") == "one"


class Pair(NamedTuple):
    """Two."""

    left: int
    right: int = 2

    def total(self):
        return self.left + self.right


class GenericPair(NamedTuple, Generic[T]):
    left: T


OldPair = collections.namedtuple("OldPair", "a b", defaults=[1])


class Options(typing.TypedDict, total=False):
    rate: float


def check_named_tuples_and_typed_dicts():
    assert Pair(1).total() == 3 and Pair(1)._asdict() == {"left": 1, "right": 2} and Pair.__doc__ == "Two."
    assert Pair._field_defaults == {"right": 2} and OldPair(3) == (3, 1) and OldPair._fields == ("a", "b")
    assert Pair(1)._replace(left=5).left == 5
    assert Options(rate=1.0) == {"rate": 1.0} and Options.__optional_keys__ == {"rate"}
    assert GenericPair(1).left == 1


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

    @property
    @abc.abstractmethod
    def sides(self): ...


class Square(Shape):
    def area(self):
        return 1

    @property
    def sides(self):
        return 4


class Virtual:
    pass


Shape.register(Virtual)


@typing.runtime_checkable
class HasArea(Protocol):
    def area(self): ...


class Box(Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content


class IntBox(Box[int]):
    pass


class Repeat(Generic[P, T]):
    pass


def check_abstract_and_generic_classes():
    try:
        Shape()
    except TypeError:
        pass
    else:
        raise AssertionError("abstract class made")
    assert Square().area() == 1 and Square().sides == 4 and issubclass(Virtual, Shape)
    assert isinstance(Square(), HasArea) and not isinstance(Virtual(), HasArea)
    assert IntBox(3).content == 3 and IntBox.__orig_bases__ == (Box[int],) and Box.__parameters__ == (T,)
    assert Box[int](1).content == 1 and Repeat.__parameters__ == (P, T)


class Registry(type):
    known: ClassVar = []

    def __new__(mcs, name, bases, body, *, key=None, **kwargs):
        made = super().__new__(mcs, name, bases, body, **kwargs)
        made.key = key or body["default_key"]
        return made

    def __len__(cls):
        return 7


class Keyed(metaclass=Registry, key="k"):
    pass


class Plugin:
    plugins: ClassVar = {}

    def __init_subclass__(cls, *, key, **kwargs):
        super().__init_subclass__(**kwargs)
        Plugin.plugins[key] = cls


class Csv(Plugin, key="csv"):
    def read(self):
        return super().__hash__() is not None and __class__.__name__


def check_metaclasses_and_init_subclass():
    assert Keyed.key == "k" and len(Keyed) == 7 and type(Keyed) is Registry
    assert Plugin.plugins == {"csv": Csv} and Csv().read() == "Csv" and Csv.__bases__ == (Plugin,)

    class Json(Plugin, key="json"):
        pass

    assert Plugin.plugins["json"] is Json


class Model:
    made = 0

    class Inner:
        pass

    def __init__(self, scale):
        self.scale = scale

    @functools.cached_property
    def costly(self):
        """Costly."""
        Model.made += 1
        return self.scale * 10

    @property
    def twice(self):
        return self.scale * 2

    @twice.setter
    def twice(self, value):
        self.scale = value / 2

    @classmethod
    def make(cls):
        return cls(5)

    @staticmethod
    def name():
        return "model"

    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033
    def cached(self, n):
        return self.scale + n

    @functools.singledispatchmethod
    def show(self, value):
        return "?"

    @show.register
    def _(self, value: int):
        return f"int {value}"

    half = functools.partialmethod(lambda self, by: self.scale / by, 2)


class Child(Model):
    def __init__(self):
        super().__init__(3)


model = Model(2)


def check_methods_and_descriptors():
    assert model.costly == 20 and model.costly == 20 and Model.made == 1 and Model.costly.__doc__ == "Costly."
    model.twice = 8
    assert model.scale == 4 and Model.make().scale == 5 and Model.name() == "model" and model.cached(1) == 5
    assert model.show(1) == "int 1" and model.show("") == "?" and model.half() == 2
    assert Child().scale == 3 and Model.Inner.__qualname__ == "Model.Inner" and model.make().costly == 50


# values


class Awkward(Exception):
    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


class AwkwardOS(OSError):
    def __init__(self, path):
        super().__init__(2, "no such", path)


awkward = Awkward(7, reason="because")
builtin_errors = [
    OSError(2, "no such", "file"),
    AwkwardOS("p"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    SystemExit(3),
    StopIteration(4),
    ImportError("no", name="mod", path="p"),
    KeyError("k"),
]


def check_exceptions():
    assert type(awkward) is Awkward and str(awkward) == "7: because" and awkward.reason == "because"
    found = {type(error): error for error in builtin_errors}
    assert (
        found[FileNotFoundError].filename == "file"
        and found[AwkwardOS].filename == "p"
        and found[AwkwardOS].errno == 2
    )
    assert str(found[UnicodeDecodeError]).startswith("'utf-8' codec") and found[SystemExit].code == 3
    assert (
        found[StopIteration].value == 4 and found[ImportError].name == "mod" and str(found[KeyError]) == "'k'"
    )


class Sentinel:
    def __reduce__(self):
        return "MISSING"


MISSING = Sentinel()


def is_missing(value=MISSING):
    return value is MISSING


weak_keys = weakref.WeakKeyDictionary({Model: 1})


def check_weak_mappings_and_views():
    assert dict(weak_keys) == {Model: 1}


def check_the_users_cloudpickle_is_left_alone():
    assert "cloudpickle" not in sys.modules, "ours must not be called so"
    version = WANTED_CLOUDPICKLE
    try:
        import cloudpickle
    except ModuleNotFoundError:
        assert version == ""
    else:
        assert version and cloudpickle.__version__.startswith(version), cloudpickle.__version__
        if version != "1.6":  # that one cannot load functions on Python 3.11 itself
            assert cloudpickle.loads(cloudpickle.dumps(double))(4) == 8
        assert b"remote_exec_runtime" not in cloudpickle.dumps(double)
        for name in [name for name in sys.modules if name.partition(".")[0] == "cloudpickle"]:
            del sys.modules[name]


# what comes back


def check_sentinels():
    assert is_missing() and is_missing(MISSING)


def back_sentinels():
    return MISSING


def home_sentinels(came):
    assert came is MISSING


def back_classes():
    return Model(6), Model, Color.RED, Awkward(1, reason="r"), Csv


def home_classes(came):
    assert [type(came[0]), *came[1:3]] == [Model, Model, Color.RED] and came[4] is Csv
    assert type(came[3]) is Awkward and came[3].reason == "r"
    assert Model.make.__func__.__globals__ is globals(), "the class that was here first was overwritten"


def back_functions_defined_there():
    class There:
        def __init__(self, n):
            self.n = n

    @functools.cache
    def square(x):
        return x * x + RATE

    return There(3), square


def home_functions_defined_there(came):
    there, square = came
    assert there.n == 3 and type(there).__name__ == "There" and square(2) == 4.5
    assert "def square" in inspect.getsource(square)


WANTED_CLOUDPICKLE = ""


def main():
    from near import Far

    global WANTED_CLOUDPICKLE
    runtime, WANTED_CLOUDPICKLE, *folders = sys.argv[1:]
    report = {}
    with Far(runtime, *folders) as far:
        for name, check in list(globals().items()):
            if name.startswith(("check_", "back_")):
                try:
                    came = far.call(check)
                    if name.startswith("back_"):
                        globals()[f"home_{name[5:]}"](came)
                    report[name] = ""
                except Exception as error:
                    report[name] = "".join(traceback.format_exception(error)) + getattr(
                        error, "traceback", ""
                    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
