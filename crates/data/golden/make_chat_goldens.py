"""Golden renderings of chat templates by transformers' Jinja environment.

Usage: make_chat_goldens.py [OUT] [--templates DIR]     (default: chat.json beside this file)

With --templates the *.jinja files of a directory are rendered instead of the templates below: `builtin.json` holds
those of `../src/chat/builtin`. Files of other directories are for `tests/parity_chat_templates.rs`, not for the repository.

Needs Python with transformers 5 and jinja2. Templates and conversations are written for this file; they follow the
habits of the templates that models ship with (trimmed blocks, namespaces, macros, slices, Python methods, generation
tags) without being any of them. Each case has the text and the spans of the generation blocks (in characters of the
text), or the error.
"""
import argparse
import glob
import json
import os

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

TEMPLATES = {
    "chatml": (
        "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
        "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    # Headers, trimmed content, a date variable with a default, BOS from the tokenizer.
    "headers": """{{- bos_token }}
{%- if date_string is not defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- macro header(role) %}{{ '<|start|>' ~ role ~ '<|end|>\n\n' }}{% endmacro %}
{%- if messages[0].role == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- header('system') + 'Today: ' + date_string + '\n' + system_message + '<|eot|>' }}
{%- for message in messages %}
    {{- header(message.role) }}
    {{- message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- header('assistant') }}
{%- endif %}
""",
    # Strict alternation, refusals, tools before the last user turn.
    "inst": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0, last=-1) %}
{%- for message in loop_messages %}
    {%- if message.role not in ['tool', 'user', 'assistant'] %}
        {{- raise_exception('Only user, assistant and tool roles, not ' + message.role + '!') }}
    {%- endif %}
    {%- if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
        {%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools and loop.index0 == ns.last %}
            {{- "[TOOLS]" + (tools | tojson) + "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[CALLS][" }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function | tojson %}
            {{- out[:-1] }}{{- ', "id": "' + call.id + '"}' }}
            {{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- else %}
        {{- '[RESULT]{"content": ' + message.content|string + '}[/RESULT]' }}
    {%- endif %}
{%- endfor %}
""",
    # Reasoning kept only after the last question; split and strip of content; a switch by keyword.
    "thinking": """{%- set ns = namespace(last_query=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" and message.content is string and not(message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.found = true %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    # Tool definitions with indent, calls by items(), results merged by neighbours, break and continue.
    "tools": """{%- if tools %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}
        {%- set f = tool.function if tool.function is defined else tool %}
        {{- '## ' + f.name | upper + '\\n' + tool | tojson(indent=2) + '\\n' }}
        {%- for name, p in f.get('parameters', {}).get('properties', {}).items() | sort %}
            {{- '- ' ~ name ~ ': ' ~ p.type ~ (' (one of ' ~ p.enum | join(', ') ~ ')' if p.enum else '') ~ '\\n' }}
        {%- endfor %}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- if message.role == 'tool' %}
        {%- if not loop.previtem or loop.previtem.role != 'tool' %}{{ '<results>\\n' }}{% endif %}
        {{- message.name | default('?', true) ~ ' -> ' ~ message.content ~ '\\n' }}
        {%- if not loop.nextitem or loop.nextitem.role != 'tool' %}{{ '</results>\\n' }}{% endif %}
    {%- else %}
        {{- message.role | capitalize ~ ': ' ~ (message.content or '') ~ '\\n' }}
        {%- for call in message.tool_calls or [] %}
            {%- if loop.index > 2 %}{{ '...\\n' }}{% break %}{% endif %}
            {%- set args = call.function.arguments %}
            {{- 'call ' ~ call.function.name ~ '(' }}
            {%- for k in args %}{{ k ~ '=' ~ args[k] | tojson(ensure_ascii=true) }}{{ ', ' if not loop.last }}{% endfor %}
            {{- ')\\n' ~ args | tojson(sort_keys=true, separators=(',', ':')) ~ '\\n' }}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
""",
    # Generation tags with every white space mark, in a loop and a condition.
    "generation": """{# marks {% generation %} the assistant {% endgeneration %} #}
{% for message in messages %}
    {% if message.role == 'assistant' %}
<|assistant|>
        {%- generation %}
 {{ message.content }}<|end|>
        {% endgeneration %}
    {% elif message.role == 'tool' %}
        {%- generation -%}  [{{ message.content }}]  {%- endgeneration -%}
    {% else %}
<|{{ message.role }}|> {{ '{% generation %}' if message.role == 'system' }}{{ message.content }}<|end|>
    {% endif %}
{% endfor %}
{%- if add_generation_prompt %}
<|assistant|>
{% endif %}
""",
    # Content as text or as a list of parts.
    "parts": """{%- for message in messages -%}
[{{ message.role }}]
    {%- if message.content is string -%}
        {{ message.content }}
    {%- elif message.content is mapping -%}
        {{ raise_exception("a mapping is no content") }}
    {%- elif message.content is iterable -%}
        {%- for part in message.content -%}
            {%- if part['type'] == 'text' -%}{{ part['text'] | trim }}{%- else -%}<{{ part.type }}>{%- endif -%}
            {%- if not loop.last %} | {% endif -%}
        {%- endfor -%}
    {%- endif %}{{ eos_token }}
{% endfor -%}
""",
    # Python's methods, printing of values, arithmetic.
    "python": """{%- for m in messages %}
{%- set c = m.content if m.content is string else 'parts' %}
{{ m.role.title() }} {{ c.strip().upper().count('A') }} {{ c.split() | length }} {{ c.split('\\n', 1)[0].rjust(12, '.') }}
{{ c.partition(' ')[2].removeprefix('the ').removesuffix('.') }} {{ c.find('e') }} {{ c.replace('e', 'E', 1) }} {{ c[::-1] }} {{ c[1:4] }} {{ c.isdigit() }}
{{ [1, 2.0, 'x', none, true, {'a': [1]}] }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ -7 % 3 }} {{ 'a' in c }} {{ loop.revindex }} {{ [3, 5].index(5) }}
{%- for line in c.splitlines() %}{{ '\\n> ' ~ line.ljust(5) ~ '|' }}{% endfor %}
{{ m.keys() | list }} {{ m.get('name', 'nobody') }} {{ c | length }} {{ ['b', 'a'] | sort | join }} {{ c | e == c }} {{ tools is iterable }}{{ m.nothing is iterable }}{{ c is iterable }}{{ 1 is iterable }}{{ m is mapping }} {{ 1.5e-9 }} {{ 1e30 | string }} {{ (1 | string) + ('x' | string) }} {{ 100.0 }}
{%- endfor %}
""",
    # What minijinja lacks and this program adds.
    "additions": (
        "{% for m in messages %}{% set c = m.content if m.content is string else 'parts' %}{{ '%s|%5.1f' % (c, 1.25) }}"
        "{{ '%d%%' % loop.index ~ '%s' % c | upper }}{{ 'x' | int }}{{ '7' | int + 1 }}{{ 'y' | float }}{{ c.center(9, '*') }}"
        "{{ '-42'.zfill(6) }}{{ c.swapcase() }}{{ 'Straße'.casefold() }}{{ '12'.isdecimal() }}{{ 'abcab'.rindex('ab') }}"
        "{{ 'a b  c'.rsplit(None, 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ 'a\tbc\td'.expandtabs(4) }}{{ 7 % 3 }}{{ [1, 2, 1].index(1, 1) }}"
        "\n{% endfor %}"
    ),
    "windows": "{% for m in messages %}\r\n{{ m.role }}\r\n  {%- if loop.last %} last{% endif %}\r\n{% endfor %}\r\n",
    "broken": "{% for m in messages %}{{ m.content.nope.nope }}{% endfor %}",
}

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Weather at a <place> & time", "parameters": {
        "type": "object", "properties": {"place": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
        "required": ["place"]}}},
    {"name": "flip", "parameters": {}},
]


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def call(i, name, **arguments):
    return {"id": f"call{i:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "plain": dict(messages=[say("user", "What rhymes with cat?"), say("assistant", "Hat.")]),
    "prompt": dict(messages=[say("system", "  You are a parrot. "), say("user", "the 'quick' <b>bold</b> & \"brown\" fox.\nJumps")],
                   add_generation_prompt=True),
    "turns": dict(messages=[say("system", "Count."), say("user", "one"), say("assistant", "two\n"), say("user", "three"),
                            say("assistant", "  four ")]),
    "unicode": dict(messages=[say("user", "Größe 日本語 🦜 \u200b\ufdd0 \U00100000 tab\there"), say("assistant", "naïve — “quotes” ñ\U0001F469‍🚀")]),
    "tools": dict(tools=TOOLS, messages=[
        say("user", "Weather in Zürich?"),
        say("assistant", None, tool_calls=[call(1, "weather", unit="C", place="Zürich"), call(2, "flip"), call(3, "flip", n=1.5e-7)]),
        say("tool", "21 <degrees>", name="weather"), say("tool", "heads", name=None), say("assistant", "21 °C, heads.")]),
    "reasoning": dict(messages=[say("user", "1+1?"), say("assistant", "2", reasoning="easy"), say("user", "2+2?"),
                                say("assistant", "4", reasoning_content="\nadd\n")]),
    "inline_reasoning": dict(messages=[say("user", "a"), say("assistant", "<think>\nhm\n</think>\n\nb"), say("user", "<result>x</result>"),
                                       say("assistant", "<think>\nagain\n</think>\n\nc")], add_generation_prompt=True,
                             kwargs={"enable_thinking": False, "date_string": "1 Jan 2030"}),
    "parts": dict(messages=[say("user", [{"type": "text", "text": " look "}, {"type": "image"}]), say("assistant", [{"type": "text", "text": "nice"}])]),
    "bad_role": dict(messages=[say("user", "a"), say("narrator", "b")]),
    "bad_order": dict(messages=[say("user", "a"), say("user", "b")]),
    "many_turns": dict(messages=[say("system", [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]),
                                 say("user", "a"), say("assistant", "b"), say("user", "c"),
                                 say("assistant", "<think>\nwhy\n</think>\n\nd"), say("user", "e\n"), say("assistant", "f")]),
    "called": dict(tools=TOOLS, messages=[say("user", "flip"), say("assistant", "", tool_calls=[call(7, "flip", n=1)]),
                                          say("tool", "heads", tool_call_id="call00007"), say("assistant", "It is heads.")]),
    "generation_in_data": dict(messages=[say("system", "s"), say("user", "{% generation %}{{ 1 }}"), say("assistant", "{# x #}"), say("tool", "t")]),
}


def render(source, case):
    messages = [{k: v for k, v in m.items() if v is not None} for m in case["messages"]]
    kwargs = {**SPECIAL, **case.get("kwargs", {})}
    marked = "generation" in source
    texts, spans = render_jinja_template([messages], tools=case.get("tools"), chat_template=source,
                                         return_assistant_tokens_mask=marked,
                                         add_generation_prompt=case.get("add_generation_prompt", False), **kwargs)
    return {"text": texts[0], "spans": [list(s) for s in (spans[0] if marked else []) if s[0] != s[1]]}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    parser.add_argument("out", nargs="?", default=os.path.join(here, "chat.json"))
    parser.add_argument("--templates")
    args = parser.parse_args()
    templates, cases = TEMPLATES, []
    if args.templates:
        files = sorted(glob.glob(os.path.join(args.templates, "*.jinja")))
        templates = {os.path.basename(path): open(path, encoding="utf-8", newline="").read() for path in files}
    # Those of the repository are read by the tests where they are.
    own = args.templates and os.path.samefile(args.templates, os.path.join(here, "../src/chat/builtin"))
    for template, source in templates.items():
        for name, case in CONVERSATIONS.items():
            try:
                result = render(source, case)
            except TemplateError as e:
                result = {"error": str(e)}
            except Exception as e:  # what Python itself refuses, for example text + undefined
                result = {"error": None, "python": repr(e)}
            cases.append({"template": template, "conversation": name, **result})
    golden = {"special_tokens": SPECIAL, "templates": {} if own else templates, "conversations": CONVERSATIONS, "cases": cases}
    with open(args.out, "w", encoding="utf-8") as f:
        json.dump(golden, f, ensure_ascii=False, indent=1)
        f.write("\n")
    print(len(cases), "cases,", sum("error" in c for c in cases), "of them refused")


main()
