"""A small FastMCP server over stdio, for the integration tests."""

import asyncio
from dataclasses import dataclass

from fastmcp import Context, FastMCP

# Counting is work: clients count what they hear before the answer.
STEP_SECONDS = 0.1


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
        await asyncio.sleep(STEP_SECONDS)
        await ctx.report_progress(progress=step, total=3)
    await asyncio.sleep(STEP_SECONDS)
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
