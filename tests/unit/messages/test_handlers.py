"""The bus: handlers are found by their annotations and get their services by type; faulty wiring stops the start."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

import pytest

from diptych import Command, Query, WiringError
from diptych.messages.handlers import Bus, by_type, ends_with_call

if TYPE_CHECKING:
    from decimal import Decimal

R = TypeVar("R")


def dispatch(bus: Bus, message: Any) -> Awaitable[Any]:
    return bus.handler_of(type(message))(message)


# Messages and handlers are defined in classes that stand for modules: only what is defined beside the handlers, or
# beside the messages that they handle, needs a handler.


class Clock:
    def now(self) -> str:
        return "12:00"


class SummerClock(Clock):
    def now(self) -> str:
        return "13:00"


class Mailer:
    pass


@runtime_checkable
class Sends(Protocol):
    def send(self) -> str: ...


class Pigeon:
    def send(self) -> str:
        return "coo"


class Owl:
    def send(self) -> str:
        return "hoo"


def services(*instances: object) -> dict[type, object | None]:
    return {type(instance): instance for instance in instances}


def problems_of(*handlers: type, given: Mapping[type, object | None] | None = None) -> list[str]:
    with pytest.raises(WiringError) as caught:
        Bus(handlers, given or {})
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return list(caught.value.problems)


class Shop:
    """A module in good order."""

    class Buy(Command[int]):
        count: int

    class Price(Query[str]):
        pass

    class Handler:
        def __init__(self, clock: Clock) -> None:
            self.clock = clock

        async def buy(self, command: Shop.Buy) -> int:
            return command.count * 2

        async def price(self, query: Shop.Price) -> str:
            return self.clock.now()

        async def _helper(self, command: Shop.Buy) -> int:
            return -1

        async def refill(self, count: int) -> None:
            """Public, but no handler: takes no message."""


async def test_messages_reach_the_methods_that_are_annotated_with_them():
    bus = Bus([Shop.Handler], services(Clock()))
    assert await dispatch(bus, Shop.Buy(4)) == 8
    assert await dispatch(bus, Shop.Price()) == "12:00"


async def test_the_handler_of_a_type_can_be_had_beforehand():
    handler = Bus([Shop.Handler], services(Clock())).handler_of(Shop.Buy)
    assert await handler(Shop.Buy(1)) == 2


async def test_a_handler_class_is_constructed_once():
    bus = Bus([Shop.Handler], services(Clock()))
    first, second = bus.handler_of(Shop.Buy), bus.handler_of(Shop.Price)
    assert first.__self__ is second.__self__  # type: ignore[attr-defined]


async def test_a_message_that_was_unknown_at_start_is_refused_with_the_remedy():
    class Late(Command[None]):
        pass

    bus = Bus([Shop.Handler], services(Clock()))
    with pytest.raises(
        WiringError, match=r"the command Late has no handler: add `async def …\(self, command: Late\)`"
    ):
        await dispatch(bus, Late())


async def test_inherited_handlers_are_found():
    class Child(Shop.Handler):
        pass

    assert await dispatch(Bus([Child], services(Clock())), Shop.Buy(1)) == 2


async def test_a_decorated_handler_is_found():
    def logged(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        async def wrapper(*arguments: Any) -> Any:
            return [await function(*arguments)]

        return wrapper

    class Decorated:
        @logged
        async def buy(self, command: Shop.Buy) -> int:
            return 1

        @logged
        async def price(self, query: Shop.Price) -> str:
            return ""

    assert await dispatch(Bus([Decorated], {}), Shop.Buy(1)) == [1]


# What constructors are given


class Module:
    """A module whose handlers hand out the arguments of their constructors."""

    class Show(Query[Any]):
        pass


async def given_to(handler: type, given: Mapping[type, object | None]) -> Any:
    return await dispatch(Bus([handler], given), Module.Show())


class WantsClock:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    async def show(self, query: Module.Show) -> Any:
        return self.clock


class WantsOptional:
    def __init__(self, clock: Clock | None) -> None:
        self.clock = clock

    async def show(self, query: Module.Show) -> Any:
        return self.clock


DEFAULT = Clock()


class WantsDefaults:
    def __init__(self, number: int = 5, clock: Clock | None = DEFAULT, *rest: str, **more: str) -> None:
        self.given = (number, clock, rest, more)

    async def show(self, query: Module.Show) -> Any:
        return self.given


class WantsProtocol:
    def __init__(self, *, carrier: Sends) -> None:
        self.carrier = carrier

    async def show(self, query: Module.Show) -> Any:
        return self.carrier


class WantsNothing:
    async def show(self, query: Module.Show) -> Any:
        return "nothing"


async def test_a_parameter_is_given_the_instance_of_its_very_type():
    clock, summer = Clock(), SummerClock()
    assert await given_to(WantsClock, services(summer, clock)) is clock


async def test_a_parameter_is_given_the_only_instance_of_a_subclass():
    summer = SummerClock()
    assert await given_to(WantsClock, services(summer, Mailer())) is summer


async def test_a_parameter_is_given_the_only_instance_that_fits_a_protocol():
    pigeon = Pigeon()
    assert await given_to(WantsProtocol, services(Clock(), pigeon)) is pigeon


async def test_an_optional_parameter_is_given_none_where_there_is_no_service():
    clock = Clock()
    assert await given_to(WantsOptional, services(clock)) is clock
    assert await given_to(WantsOptional, services(Mailer())) is None
    assert await given_to(WantsOptional, {Clock: None}) is None


async def test_a_parameter_keeps_its_default_where_there_is_no_service():
    clock = Clock()
    assert await given_to(WantsDefaults, {}) == (5, DEFAULT, (), {})
    assert await given_to(WantsDefaults, services(clock)) == (5, clock, (), {})


async def test_a_class_without_a_constructor_needs_no_service():
    assert await given_to(WantsNothing, {}) == "nothing"


def test_an_error_in_a_constructor_is_raised_as_it_is():
    class Broken:
        def __init__(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Bus([Broken], {})


# Faults of constructors


def test_a_parameter_that_nothing_provides_is_refused_with_what_there_is():
    assert problems_of(WantsClock, given=services(Mailer(), Pigeon())) == [
        "WantsClock asks for clock: Clock, which nothing provides: pass an instance in Diptych(services=[…]), or "
        "list the read model in read_models (there are: Mailer, Pigeon)"
    ]


def test_a_service_that_is_known_but_not_set_up_is_refused_with_both_remedies():
    assert problems_of(WantsClock, given={Clock: None}) == [
        "WantsClock asks for clock: Clock, which is not set up here: set REDIS_URL, or annotate it `Clock | None`"
    ]


def test_a_parameter_by_position_alone_is_refused():
    class Apart:
        def __init__(self, clock: Clock, /, number: int = 5) -> None: ...

    assert problems_of(Apart, given=services(Clock())) == [
        "Apart.__init__ takes clock by position alone: leave out the `/`"
    ]


def test_two_services_of_one_type_are_refused():
    """The second would take the place of the first, and no constructor could ask for the first."""
    clock, pigeon = Clock(), Pigeon()
    assert by_type([clock, pigeon]) == {Clock: clock, Pigeon: pigeon}
    with pytest.raises(
        WiringError, match="2 services are of the type Clock: keep one, or give each a class of its own"
    ):
        by_type([clock, pigeon, Clock()])


def test_two_services_that_fit_are_refused():
    assert problems_of(WantsProtocol, given=services(Pigeon(), Owl())) == [
        "WantsProtocol asks for carrier: Sends, and 2 services fit: annotate it with the class of the one it needs"
    ]


def test_two_services_that_fit_are_refused_even_where_there_is_a_default():
    """The default would be taken silently, though there are services."""

    class Unsure:
        def __init__(self, carrier: Sends | None = None) -> None: ...

    assert [
        "2 services fit" in problem for problem in problems_of(Unsure, given=services(Pigeon(), Owl()))
    ] == [True]


def test_a_parameter_without_a_type_is_refused():
    class Untyped:
        def __init__(self, clock) -> None: ...

    assert problems_of(Untyped, given=services(Clock())) == [
        "Untyped.__init__ does not say the type of its parameter 'clock': annotate it with the service it needs"
    ]


def test_a_protocol_that_cannot_be_checked_is_provided_by_nothing():
    class Hidden(Protocol):
        def send(self) -> str: ...

    class Wants:
        def __init__(self, carrier) -> None: ...

    Wants.__init__.__annotations__["carrier"] = Hidden
    assert [
        "which nothing provides" in problem for problem in problems_of(Wants, given=services(Pigeon()))
    ] == [True]


def test_an_annotation_of_a_constructor_that_cannot_be_resolved_is_told_once():
    class Lost:
        def __init__(self, amount: Decimal) -> None: ...

    assert problems_of(Lost) == [
        "Lost has an annotation that can't be resolved (name 'Decimal' is not defined): import the name at run time"
    ]


# Faults of handlers


class Missing:
    class Buy(Command[int]):
        pass

    class Price(Query[int]):
        pass

    class Refund(Command[int]):
        pass

    class Handler:
        async def refund(self, command: Missing.Refund) -> int:
            return 1


def test_messages_without_a_handler_are_refused_with_the_remedy():
    assert problems_of(Missing.Handler) == [
        "the command Buy has no handler: add `async def …(self, command: Buy)` to a class in Diptych(handlers=[…])",
        "the query Price has no handler: add `async def …(self, query: Price)` to a class in Diptych(handlers=[…])",
    ]


def test_messages_beside_handlers_that_handle_nothing_are_refused_too():
    class Buy(Command[int]):
        pass

    class Handler:
        pass

    assert ["command Buy has no handler" in problem for problem in problems_of(Handler)] == [True]


def test_messages_of_other_modules_are_no_concern():
    Bus([Shop.Handler], services(Clock()))  # though those of `Missing` have no handler


def test_a_message_that_is_only_a_base_of_others_needs_no_handler():
    class Change(Command[int]):
        pass

    class Rise(Change):
        pass

    class Handler:
        async def rise(self, command) -> int:
            return 1

    Handler.rise.__annotations__["command"] = Rise
    Bus([Handler], {})


class Bases:
    """Messages that have fields and subclasses at once may be sent, except for messages that say no."""

    class Change(Command[int]):
        amount: int

    class Rise(Change):
        reason: str

    class Steep(Rise):
        pass

    class _Look(Query[int]):
        place: str

    class Peek(_Look):
        pass

    class Kept(Command[R], Generic[R]):
        name: str

    class Keep(Kept[int]):
        pass

    class Handler:
        async def steep(self, command: Bases.Steep) -> int:
            return 1

        async def peek(self, query: Bases.Peek) -> int:
            return 1

        async def keep(self, command: Bases.Keep) -> int:
            return 1


def test_a_message_with_fields_of_its_own_needs_a_handler_though_others_derive_from_it():
    assert problems_of(Bases.Handler) == [
        f"the command {name} has no handler: add `async def …(self, command: {name})` to a class in "
        "Diptych(handlers=[…]), or begin its name with _ if it is only a base of others"
        for name in ("Change", "Rise")
    ]


async def test_a_function_that_makes_applications_may_be_called_again():
    """Messages of earlier calls live on for a while, and are not taken for forgotten messages."""

    def make() -> tuple[Bus, type[Command[int]]]:
        class Buy(Command[int]):
            pass

        class Handler:
            async def buy(self, command) -> int:
                return 1

        Handler.buy.__annotations__["command"] = Buy
        return Bus([Handler], {}), Buy

    gc.disable()
    try:
        for bus, message in [make(), make()]:
            assert await dispatch(bus, message()) == 1
    finally:
        gc.enable()


def test_two_handlers_of_one_message_are_refused():
    class Another:
        async def buy(self, command: Shop.Buy) -> int:
            return 1

        async def purchase(self, command: Shop.Buy) -> int:
            return 1

    assert problems_of(Shop.Handler, Another, given=services(Clock())) == [
        "Buy has 3 handlers, Handler.buy and Another.buy and Another.purchase: keep one of them"
    ]


class Faulty:
    class One(Command[int]):
        pass

    class Two(Command[list[int]]):
        pass

    class NotAsync:
        def one(self, command: Faulty.One) -> int:
            return 1

    class TooMany:
        async def one(self, command: Faulty.One, clock: Clock) -> int:
            return 1

    class WrongResult:
        async def one(self, command: Faulty.One) -> str:
            return ""

        async def two(self, command: Faulty.Two) -> list[str]:
            return []

    class Unresolved:
        async def one(self, command: Faulty.One, amount: Decimal) -> int:
            return 1

    class Right:
        async def one(self, command: Faulty.One) -> int:
            return 1

        async def two(self, command: Faulty.Two):
            """Says nothing of its result, and may do so."""

    class Nothing:
        async def one(self, command: Faulty.One) -> None: ...


def without_missing(problems: list[str]) -> list[str]:
    return [problem for problem in problems if "has no handler" not in problem]


def test_a_handler_that_is_not_asynchronous_is_refused():
    assert without_missing(problems_of(Faulty.NotAsync)) == [
        "NotAsync.one is not asynchronous: write it with `async def`"
    ]


def test_a_handler_with_more_than_the_message_is_refused():
    assert without_missing(problems_of(Faulty.TooMany, given=services(Clock()))) == [
        "TooMany.one takes 2 parameters: a handler takes the message alone, and services through the constructor of "
        "TooMany"
    ]


def test_a_handler_whose_result_is_not_the_promised_one_is_refused():
    assert without_missing(problems_of(Faulty.WrongResult)) == [
        "WrongResult.one returns str, but One promises int: make them the same",
        "WrongResult.two returns list[str], but Two promises list[int]: make them the same",
    ]
    assert without_missing(problems_of(Faulty.Nothing)) == [
        "Nothing.one returns NoneType, but One promises int: make them the same"
    ]


def test_an_annotation_of_a_handler_that_cannot_be_resolved_is_refused():
    assert without_missing(problems_of(Faulty.Unresolved)) == [
        "Unresolved.one has an annotation that can't be resolved (name 'Decimal' is not defined): "
        "import the name at run time"
    ]


def test_a_handler_need_not_say_its_result():
    Bus([Faulty.Right], {})


class Shapes:
    """Handlers that could not be called with their message, or would be passed over."""

    class One(Command[int]):
        pass

    class Two(Command[int]):
        pass

    class ByName:
        async def one(self, *, command: Shapes.One) -> int:
            return 1

    class Star:
        async def one(self, *commands: Shapes.One) -> int:
            return 1

    class Either:
        async def one(self, command: Shapes.One | Shapes.Two) -> int:
            return 1

    class Static:
        @staticmethod
        async def one(command: Shapes.One) -> int:
            return 1

    class OfClass:
        @classmethod
        async def two(cls, command: Shapes.Two) -> int:
            return 1

    class Helpers:
        """Methods none of which is a handler, or looks like a handler."""

        @staticmethod
        def _checked(command: Shapes.One) -> int:
            return 1

        @classmethod
        def default(cls, number: int) -> Shapes.One:
            return Shapes.One()

        @functools.cached_property
        def last(self) -> Shapes.One:
            return Shapes.One()

    class Positional:
        async def one(self, command: Shapes.One, /) -> int:
            return 1


@pytest.mark.parametrize("handler", [Shapes.ByName, Shapes.Star])
def test_a_handler_that_does_not_take_its_message_by_position_is_refused(handler: type):
    assert without_missing(problems_of(handler)) == [
        f"{handler.__name__}.one can't be given its message by position: write `async def one(self, command: One)`"
    ]


def test_a_handler_of_several_messages_is_refused():
    (problem,) = without_missing(problems_of(Shapes.Either))
    assert problem.startswith("Either.one takes ")
    assert problem.endswith(": a handler takes one kind of message, so write a method for each")


def test_a_static_or_class_method_that_takes_a_message_is_refused():
    assert without_missing(problems_of(Shapes.Static, Shapes.OfClass)) == [
        "Static.one takes a One, but is no plain method: write `async def one(self, command: One)`, or begin its "
        "name with _ if it handles nothing",
        "OfClass.two takes a Two, but is no plain method: write `async def two(self, command: Two)`, or begin its "
        "name with _ if it handles nothing",
    ]


def test_methods_that_take_no_message_are_no_concern():
    assert without_missing(problems_of(Shapes.Helpers)) == []


async def test_a_handler_may_take_its_message_by_position_alone():
    class Rest:
        async def two(self, command) -> int:
            return 2

    Rest.two.__annotations__["command"] = Shapes.Two
    assert await dispatch(Bus([Shapes.Positional, Rest], {}), Shapes.One()) == 1


def test_an_instance_where_a_handler_class_belongs_is_refused():
    assert problems_of(Shop.Handler(Clock())) == [  # type: ignore[arg-type]
        "handlers has something of the type Handler where a class belongs: list the class itself, of which one "
        "instance is made with the services that it asks for"
    ]


class Kinds:
    class Kept(Command[R], Generic[R]):
        """A kind of command of the application's own."""

    class Keep(Kept[int]):
        pass

    class Handler:
        async def keep(self, command: Kinds.Keep) -> int:
            return 1


async def test_commands_may_derive_from_a_generic_of_the_applications_own():
    assert await dispatch(Bus([Kinds.Handler], {}), Kinds.Keep()) == 1


def test_all_faults_are_listed_at_once():
    problems = problems_of(Faulty.NotAsync, Faulty.TooMany, Missing.Handler, WantsClock, Faulty.WrongResult)
    for part in (
        "NotAsync.one is not asynchronous",
        "TooMany.one takes 2 parameters",
        "command Buy has no handler",
        "query Price has no handler",
        "WantsClock asks for clock",
        "WrongResult.one returns str",
    ):
        assert sum(part in problem for problem in problems) == 1
    with pytest.raises(WiringError, match=r"^the application is not wired correctly:\n  - .+(\n  - .+)+$"):
        raise WiringError(problems)


async def _returned(call: Any) -> Any:
    return await call()


async def _last_statement(call: Any) -> None:
    await call()


async def _with_words_for_errors(call: Any) -> Any:
    try:
        return await call()
    except KeyError as error:
        raise ValueError from error


async def _used(call: Any) -> bool:
    return await call() is not None


async def _twice(call: Any) -> Any:
    await call()
    return await call()


async def _in_a_loop(call: Any) -> None:
    for _ in range(2):
        await call()


async def _inside_something(call: Any) -> Any:
    with contextlib.suppress(KeyError):
        return await call()


async def _finally(call: Any) -> Any:
    try:
        return await call()
    finally:
        call.close()


async def _between(call: Any) -> Any:
    async with call:
        return await call()


def _not_asynchronous(call: Any) -> Any:
    return call()


@pytest.mark.parametrize(
    ("function", "ends"),
    [
        *((function, True) for function in (_returned, _last_statement, _with_words_for_errors)),
        *(
            (function, False)
            for function in (_used, _twice, _in_a_loop, _inside_something, _finally, _between)
        ),
        (_not_asynchronous, False),
    ],
)
def test_what_comes_after_the_only_call_of_a_handler_is_known(function: Callable[..., Any], ends: bool):
    assert ends_with_call(function) is ends
