"""How every noun and verb of the command line behaves: settings, one-line errors, exit codes. No noun lives here."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import click

from streams.cli import piped
from streams.cli.telling import telling
from streams.core.names import Site, shown
from streams.errors import Transfer2goError, UsageError, did_you_mean, without_part_names
from streams.settings import Settings, load_settings

INTERRUPTED = 130
_FLAGS = "transfer2go.flags"
_F = TypeVar("_F", bound=Callable[..., Any])


def _flag(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None:
        ctx.meta.setdefault(_FLAGS, {})[param.name] = value


def _common() -> list[click.Parameter]:
    return [
        click.Option(["--site"], metavar="SITE", expose_value=False, callback=_flag, help="The site to act for."),
        click.Option(
            ["--state"], metavar="DIR", expose_value=False, callback=_flag, help="Where the federation's files are."
        ),
    ]


class Verb(click.Command):
    """A command with --site and --state, whose context's `obj` is the Settings.

    `federation=False`: it also runs where no sites.toml exists yet. `follows`: it prints what comes, for as long as
    somebody reads that.
    """

    def __init__(self, *args: Any, federation: bool = True, follows: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.federation, self.follows = federation, follows
        own = {name for param in self.params for name in param.opts}
        self.params += [param for param in _common() if not own & set(param.opts)]

    def invoke(self, ctx: click.Context) -> Any:
        if not isinstance(ctx.obj, Settings):
            ctx.obj = settings_of(ctx, federation=self.federation)
        with piped.ends_with_reader() if self.follows else nullcontext():
            return super().invoke(ctx)


def settings_of(ctx: click.Context, *, federation: bool = True) -> Settings:
    return load_settings(need_federation=federation, **ctx.meta.get(_FLAGS, {}))


def acting_settings() -> Settings:
    """The settings of an `ActingNoun` that acts itself."""
    ctx = click.get_current_context()
    return ctx.obj if isinstance(ctx.obj, Settings) else settings_of(ctx)


class Noun(click.Group):
    """A noun: its verbs are `Verb`s."""

    command_class = Verb


class ActingNoun(Noun):
    """A noun that acts by itself where no verb follows; its own options are no verb's.

    Its settings are read when it acts: a verb's flags are not parsed before.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.invoke_without_command, self.no_args_is_help = True, False
        own = {name for param in self.params for name in param.opts}
        self.params += [param for param in _common() if not own & set(param.opts)]


class Root(Noun):
    """`transfer2go`: loads a noun's file when it is asked for, and turns whatever happens into one line and a code."""

    def __init__(self, nouns: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(params=[*_common(), self._debug_option(), _version_option()], **kwargs)
        self._debugging = False
        self._nouns = nouns

    def _debug_option(self) -> click.Option:
        def note(ctx: click.Context, param: click.Parameter, value: bool) -> None:
            self._debugging = value
            if value:
                logging.basicConfig(level=logging.INFO)

        return click.Option(
            ["--debug"], is_flag=True, envvar="T2G_DEBUG", expose_value=False, is_eager=True, callback=note, hidden=True
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._nouns)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._nouns:
            return None
        command = getattr(import_module(f"streams.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._nouns.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._nouns:
            hint = did_you_mean(args[0], self._nouns)
            ctx.fail(f"no command {shown(args[0])!r}" + (f"; {hint}" if hint else ""))
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        code = self._guarded(args, prog_name or "transfer2go", complete_var, extra)
        if standalone_mode:
            sys.exit(code)
        return code

    def _guarded(self, args: Any, prog_name: str, complete_var: str | None, extra: Any) -> int:
        """Run; the exit code. Nothing but SystemExit ever leaves."""
        try:
            with telling():
                given = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else prog_name
            _complain(f"{error.format_message().rstrip('.')}; see `{path} --help`")
            return UsageError.exit_code
        except click.ClickException as error:
            _complain(error.format_message())
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            if piped.has_ended():
                piped.hush()
                return 0
            return INTERRUPTED
        except SystemExit as end:
            # So click ends at a closed pipe: whoever read our output has had enough, which is no failure.
            if not isinstance(end.__context__, BrokenPipeError):
                raise
            return 0 if piped.hush() else _unforeseen(end.__context__)
        except Transfer2goError as error:
            _complain(str(error))
            return error.exit_code
        except Exception as error:
            if isinstance(error, BrokenPipeError) and piped.hush():
                return 0
            if self._debugging:
                raise
            return _unforeseen(error)
        return given if isinstance(given, int) else 0


def _version_option() -> click.Option:
    def tell(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            try:
                number = version("transfer2go")
            except PackageNotFoundError:
                number = "not installed: run from its source tree"
            click.echo(f"transfer2go {number}")
            ctx.exit()

    words = "Show the version and exit."
    return click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=tell, help=words)


def _unforeseen(error: Exception) -> int:
    """An error that is none of ours, in a line; the exit code."""
    if isinstance(error, OSError) and error.strerror:
        _complain(error.strerror + (f" ({error.filename})" if error.filename else ""))
    else:
        what = f"internal error: {type(error).__name__}: {error}"
        _complain(f"{what}; run it again with T2G_DEBUG=1 and report what that says")
    return Transfer2goError.exit_code


def _complain(line: str) -> None:
    click.echo(f"transfer2go: {shown(without_part_names(line), 2000)}", err=True)


def leave(code: int) -> None:
    click.get_current_context().exit(code)


@contextmanager
def terminable(raised: type[BaseException]) -> Iterator[None]:
    """SIGTERM raises this in the block."""

    def stop(*_: object) -> None:
        raise raised

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def json_option(command: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="JSON: lines for a list, one object for one thing.")(
        command
    )


def execute_option(command: _F) -> _F:
    return click.option("--execute", is_flag=True, help="Do it; without this it only shows what it would do.")(command)


def site_of(settings: Settings) -> Site:
    """The site to act for: the one named, else the first of a federation that lives in the state directory."""
    if settings.site is None:
        for site in settings.registry.names:
            if (settings.state / site / "site.toml").is_file():
                return site
    return settings.here


def at_site(settings: Settings, site: Site | None = None) -> Settings:
    """The settings as `site` reads them (default: `site_of`), its own file included."""
    chosen = site_of(settings) if site is None else site
    if settings.site == chosen:
        return settings
    ctx = click.get_current_context(silent=True)
    flags = dict(ctx.meta.get(_FLAGS, {})) if ctx else {}
    flags.update(site=str(chosen), state=str(settings.state), sites=str(settings.sites_path))
    return load_settings(**flags)
