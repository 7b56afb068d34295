"""A client made with the Python SDK, for the integration tests.

    python client.py JOB

JOB is JSON: `era` (`legacy` or `modern`), where to go (`command` or `url` and `key`), and `steps`.
Prints one line of JSON: what each step gave, and what the server asked.
"""

import asyncio
import json
import sys

import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

job = json.loads(sys.argv[1])
asked = []


async def elicited(_context, _params):
    asked.append("elicitation/create")
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def sampled(_context, _params):
    asked.append("sampling/createMessage")
    content = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def rooted(_context):
    asked.append("roots/list")
    root = types.Root(uri="file:///root-of-the-client")
    return types.ListRootsResult(roots=[root])


def there():
    if "url" not in job:
        command, *args = job["command"]
        return StdioServerParameters(command=command, args=args, cwd=job["cwd"])
    http = create_mcp_http_client(headers={"Authorization": f"Bearer {job['key']}"})
    return streamable_http_client(job["url"], http_client=http)


def texts(contents):
    return "\n".join(getattr(content, "text", "") for content in contents)


async def call(client, step):
    seen = 0

    async def progressed(_progress, _total, _message):
        nonlocal seen
        seen += 1

    callback = progressed if step.get("progress") else None
    result = await client.call_tool(step["name"], step["arguments"], progress_callback=callback)
    meta = result.meta or {}
    causes = meta.get("io.holdpoint/decision", {}).get("causes", [])
    return {
        "text": texts(result.content),
        "failed": result.is_error is True,
        "reasons": [cause["reason"] for cause in causes],
        "progress": seen,
    }


async def take(client, step):
    match step["do"]:
        case "tools":
            return [tool.name for tool in (await client.list_tools()).tools]
        case "call":
            return await call(client, step)
        case "resources":
            return [str(found.uri) for found in (await client.list_resources()).resources]
        case "read":
            return texts((await client.read_resource(step["uri"])).contents)
        case "prompts":
            return [prompt.name for prompt in (await client.list_prompts()).prompts]
        case "prompt":
            found = await client.get_prompt(step["name"], step["arguments"])
            return texts(message.content for message in found.messages)


async def main():
    answers = []
    client = Client(
        there(),
        mode="legacy" if job["era"] == "legacy" else "2026-07-28",
        elicitation_callback=elicited,
        sampling_callback=sampled,
        list_roots_callback=rooted,
    )
    async with client:
        for step in job["steps"]:
            try:
                answers.append(await take(client, step))
            except MCPError as fault:
                reason = fault.data.get("reason") if isinstance(fault.data, dict) else None
                found = {"fault": fault.message, "code": fault.code, "reason": reason}
                answers.append(found)
    print(json.dumps({"answers": answers, "asked": asked}))


asyncio.run(main())
