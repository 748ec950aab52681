"""Does the program render chat templates as transformers does?

    templates.py write      writes llm/tests/golden/templates.json
    templates.py check      fails if transformers renders anything else than that file says

`cargo test` compares the program's prompts with the file (llm/tests/integration/templates.rs). The
templates are our own, of the kinds that published models have: what matters is the constructs.
transformers' clock stands at the program's date, and `enable_thinking` is given, as the program does.
"""

import datetime
import json
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from transformers.utils import chat_template_utils

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "llm/tests/golden/templates.json"
TOKENS = {"bos_token": "<|bos|>", "eos_token": "<|end|>"}
DATE = datetime.datetime(2024, 7, 26)

# Contents with white space at their ends, because templates differ in what they strip.
SYSTEM = "\n You answer exactly. \n"
USER = "\n The trust won.\n\nWho won\u00a0it? \n\n"
ANSWER = "\n It was Acme. \n"

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
FILE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set sys = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set sys = false %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and sys != false %}{% set c = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + m['content'] %}"
    "{% else %}{% set c = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + c.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|hs|>' + message['role'] + '<|he|>\\n\\n' + message['content'] | trim + '<|eot|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|hs|>assistant<|he|>\\n\\n' }}{% endif %}"
)
LLAMA32 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|hs|>system<|he|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|hs|>' + message['role'] + '<|he|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- tool_call.arguments | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|hs|>assistant<|he|>\\n\\n' }}
{%- endif %}
"""
THINKING = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
GEMMA = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}"
    "{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}"
    "{%- for message in loop_messages -%}{%- if (message['role'] == 'assistant') -%}{%- set role = 'model' -%}{%- else -%}"
    "{%- set role = message['role'] -%}{%- endif -%}{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- elif message['content'] is iterable -%}"
    "{%- for item in message['content'] -%}{%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}"
    "{%- endif -%}{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}\n"
)
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""
R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + eos_token }}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)

TEMPLATES = {
    "chatml": CHATML,
    "default-system": "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are tiny.<|im_end|>\\n' }}{% endif %}" + CHATML,
    "llama3": LLAMA3,
    "llama2": LLAMA2,
    "no-system": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML,
    "strftime-required": "{%- set today = strftime_now('%Y-%m-%d') %}{{ bos_token }}{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nToday is ' + today + '.<|im_end|>\\n' }}{% endif %}" + CHATML,
    "strftime-optional": "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '1 Jan 1970' %}{%- endif %}{%- endif %}{{ bos_token + '<|im_start|>system\\nToday Date: ' + date_string + '<|im_end|>\\n' }}" + CHATML,
    "loop-controls": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'tool' %}{% continue %}{% endif %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% if loop.index > 9 %}{% break %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "generation": "{{ bos_token }}{%- for m in messages %}\n  {%- if m.role == 'assistant' %}\n    {{- '<|im_start|>assistant\\n' }}{%- generation %}{{- m.content + '<|im_end|>' }}{%- endgeneration %}{{- '\\n' }}\n  {%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "generation-lines": "{% for m in messages %}\n{{ m.role }}:\n{% if m.role == 'assistant' %}\n    {% generation %}\n{{ m.content }}\n    {% endgeneration %}\n{% else %}\n{{ m.content }}\n{% endif %}\n{% endfor %}\n",
    "namespace-macro": "{% macro turn(r, c) %}{{ '<|im_start|>' ~ r ~ '\\n' ~ c ~ '<|im_end|>\\n' }}{% endmacro %}{% set ns = namespace(n=0, last='') %}{{ bos_token }}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.role %}{{ turn(m.role, m.content) }}{% endfor %}{% if ns.last == 'user' and add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "filters": "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + (m.role | capitalize | upper | lower) + '\\n' }}{{ m.content | replace('zzz', '') | string }}{{ '<|im_end|>' + '\\n' }}{% endfor %}{% set users = messages | selectattr('role', 'equalto', 'user') | list %}{% if users | length > 0 and add_generation_prompt %}{{ '<|im_start|>' + ['assistant', 'x'] | first + '\\n' }}{% endif %}",
    "pymethods": "{{ bos_token }}{% for m in messages %}{% if m.get('tool_calls') is none or not m.get('tool_calls', []) %}{{ '<|im_start|>' + m['role'].strip() + '\\n' }}{% if m['content'].startswith('zz') %}{{ 'z' }}{% endif %}{{ m['content'].split('</think>')[-1].lstrip('\\n') }}{{ '<|im_end|>\\n' }}{% endif %}{% for k, v in m.items() %}{% if k == 'name' %}{{ v }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "parts": "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "parts-only": "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "think-prompt": CHATML.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}"),
    "set-block": "{{ bos_token }}{% for m in messages %}{% set body %}{{ '<|im_start|>' + m.role + '\\n' }}{{ m.content }}{% endset %}{{ body }}{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "multi-line": "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\nUser: {{ m.content }}\n    {% else %}\nBot: {{ m.content }}{{ eos_token }}\n    {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}\nBot:\n{% endif %}\n",
    "none-eos": "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content }}{% if sep_token is defined and sep_token %}{{ sep_token }}{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt is defined and add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
    "file-lf": FILE,
    "file-crlf": FILE.replace("\n", "\r\n"),
    "file-cr": FILE.replace("\n", "\r"),
    "multi-line-crlf": "{{ bos_token }}\r\n{% for m in messages %}\r\n  {%- if m.role == 'user' %}\r\nUser: {{ m.content }}\r\n  {% endif %}\r\n{% endfor %}\r\nBot:\r\n",
    "llama3.2": LLAMA32,
    "thinking": THINKING,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "r1": R1,
    "json": "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ {'b': 1, 'a': ['x', none, true, 2.5]} | tojson }} {{ {'k': {'l': []}} | tojson(indent=2) }} {{ '<b>&\"\u00e9' | tojson }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "vicuna": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] + ' ' %}{% else %}{% set loop_messages = messages %}{% set system_message = 'A chat between a curious user and an assistant. ' %}{% endif %}{{ system_message }}{% for m in loop_messages %}{{ ('USER: ' if m.role == 'user' else 'ASSISTANT: ') + m.content.strip() + (' ' if m.role == 'user' else eos_token) }}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    "alpaca": "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}### Instruction:\n{{ m.content.strip() }}\n\n{% else %}### Response:\n{{ m.content }}{{ eos_token }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
    "phi": "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "granite": "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set system_message = \"Knowledge Cutoff Date: April 2024.\\nToday's Date: \" + strftime_now('%B %d, %Y') + \".\\nYou are tiny.\" %}{%- set loop_messages = messages %}{%- endif %}{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\\n' }}{%- for message in loop_messages %}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant' }}{{- '<|end_of_role|>' }}{%- endif %}{%- endfor %}",
    "dictionary": "{% set names = {'user': 'U', 'assistant': 'A', 'system': 'S'} %}{{ bos_token }}{% for m in messages %}{{ names[m.role] }}|{{ names.get('x', 'none') }}|{% for k in names %}{{ k }}{% endfor %}|{{ names | length }}|{{ names.keys() | list | join(',') }}\n{{ m.content }}\n{% endfor %}",
    "arithmetic": "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ loop.revindex }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ 7 / 2 }} {{ 1.0 }} {{ true }} {{ none }} {{ 'a' if loop.first else 'b' }} {{ 'x' * 3 }}\n{{ m.content }}\n{% endfor %}",
    "tests": "{% for m in messages %}{{ m.content is defined }} {{ m.x is undefined }} {{ m is mapping }} {{ m.content is string }} {{ messages is iterable }} {{ messages is sequence }} {{ 3 is odd }} {{ none is none }} {{ m.role in ['user'] }} {{ 'us' in m.role }} {{ m.x or 'd' }} {{ m.x | default('e') }}\n{{ m.content }}\n{% endfor %}",
    "nested-loops": "{% for m in messages %}{% for c in [1, 2] %}{{ loop.index0 }}{% endfor %}{% set loop_messages = messages[:1] %}{{ loop_messages | length }}{{ messages[-1].role }}{{ '%s-%s' | format(m.role, 2) }}\n{{ m.content }}\n{% else %}none{% endfor %}",
    "comments": "{# what it does #}\n{%- for m in messages -%}\n  {#- inside -#}\n  {{ '<' ~ m.role ~ '>' }}\n  {{- m.content -}}\n  {# more #}\n  {{ '</' ~ m.role ~ '>' }}\n{%- endfor -%}\n",
    "line-blocks": "  {% for m in messages %}\n    {{ m.role }}\n  {%+ if true %}x{% endif +%}\n  {{ m.content }}\n  {% endfor %}  \n",
}


class Clock(datetime.datetime):
    """`datetime.now()` is the program's date."""

    @classmethod
    def now(cls, tz=None):
        return cls(DATE.year, DATE.month, DATE.day)


def render(source, messages, reply, thinking):
    """The text, or none where the template refuses the conversation."""
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[messages],
            chat_template=source,
            add_generation_prompt=reply,
            enable_thinking=thinking,
            **TOKENS,
        )
    except Exception:  # whatever a template raises
        return None
    return rendered[0]


def expected(source):
    user = {"role": "user", "content": USER}
    system = {"role": "system", "content": SYSTEM}
    answer = {"role": "assistant", "content": ANSWER}
    merged = {"role": "user", "content": f"{SYSTEM}\n\n{USER}"}
    if USER.strip() not in (render(source, [user], True, False) or ""):
        # the template knows contents in parts alone
        for message in (user, system, answer, merged):
            message["content"] = [{"type": "text", "text": message["content"]}]
    found = {}
    for thinking in (False, True):
        name = "thinking" if thinking else "plain"
        with_system = render(source, [system, user], True, thinking)
        if with_system is None or SYSTEM.strip() not in with_system:
            with_system = render(source, [merged], True, thinking)
        found[name] = {
            "question": render(source, [user], True, thinking),
            "with_system": with_system,
            "conversation": render(source, [user, answer], False, thinking),
        }
    return found


def main():
    chat_template_utils.datetime = Clock
    content = {
        "tokens": TOKENS,
        "system": SYSTEM,
        "user": USER,
        "answer": ANSWER,
        "templates": {n: {"source": s, "expected": expected(s)} for n, s in TEMPLATES.items()},
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    match sys.argv[1:]:
        case ["write"]:
            GOLDEN.write_text(text)
            print(f"{GOLDEN}: {len(TEMPLATES)} templates")
        case ["check"]:
            known = json.loads(GOLDEN.read_text())
            wrong = [n for n, t in content["templates"].items() if known["templates"].get(n) != t]
            print(f"{len(TEMPLATES)} templates, {len(wrong)} rendered otherwise {wrong or ''}")
            sys.exit(1 if wrong or len(known["templates"]) != len(TEMPLATES) else 0)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
