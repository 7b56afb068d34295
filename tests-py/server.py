"""A small FastMCP server over stdio, for the integration tests."""

from dataclasses import dataclass

from fastmcp import Context, FastMCP


@dataclass
class Person:
    """What a user is asked for."""

    name: str


server = FastMCP("holdpoint-fastmcp")


@server.tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool
def wipe() -> str:
    """Deletes everything, were it let."""
    return "wiped"


@server.tool
async def count(ctx: Context) -> str:
    """Counts to three and reports each step."""
    for step in (1, 2, 3):
        await ctx.report_progress(progress=step, total=3)
    return "counted"


@server.tool
async def ask(ctx: Context) -> str:
    """Asks the user for a name."""
    answer = await ctx.elicit("Who are you?", response_type=Person)
    return f"{answer.action}: {answer.data.name}"


@server.resource("note://today")
def today() -> str:
    """A note."""
    return "Feed the cat."


@server.prompt
def greet(name: str) -> str:
    """Greets somebody."""
    return f"Say hello to {name}."


server.run(show_banner=False)
