"""What Python's jinja2 writes for templates and their inputs: the expected half of differential_test.cc.

    oracle.py templates OUT DIR...      every *.jinja of the folders x the conversations below
    oracle.py random OUT SEED N         N generated templates with generated inputs

Each line of OUT is a JSON object: name, template, globals, and expected (the text) or error (the oracle's words). The
environment is that of Hugging Face's transformers (utils/chat_template_utils.py, 4.57).
"""
import datetime
import json
import pathlib
import random
import re
import sys

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 7, 26, 12, 0, 0)  # differential_test.cc renders at the same time


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


ENV = environment()


def case(name, template, values):
    line = {"name": name, "template": template, "globals": values}
    try:
        line["expected"] = ENV.from_string(template).render(**values)
        line["expected"].encode("utf-8")
        if re.search(r"<[^<>]* at 0x[0-9a-f]+>|<Macro ", line["expected"]):
            raise ValueError("writes a function or an iterator by its address")
    except Exception as error:  # jinja2 lets Python's own errors through
        line.pop("expected", None)
        line["error"] = f"{type(error).__name__}: {error}"
    return line


def continued(template, values):
    """apply_chat_template(continue_final_message=True) of the same file; None where it raises."""
    tag = "CONTINUE_FINAL_MESSAGE_TAG "
    values = json.loads(json.dumps(values))
    last = values["messages"][-1]
    begun = last["content"]
    last["content"] += tag
    try:
        text = ENV.from_string(template).render(**values)
    except Exception:
        return None
    if begun.strip() not in text or tag.strip() not in text:
        return None
    at = text.rindex(tag.strip())
    return text[:at] if text[at : at + len(tag)] == tag else text[:at].rstrip()


# ---- Published templates ---------------------------------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "You are a terse assistant.\nAnswer in one line."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "set_temperature",
            "description": "Sets a seat's temperature \u2014 \"slowly\".",
            "parameters": {
                "type": "object",
                "properties": {
                    "zone": {"type": "string", "enum": ["driver", "passenger"], "description": "Whose seat."},
                    "celsius": {"type": "number", "description": "Degrees, <= 28 & >= 16."},
                },
                "required": ["zone", "celsius"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "weather", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "set_temperature", "arguments": {"zone": "driver", "celsius": 21.5}},
        }
    ],
}
RESULT = {
    "role": "tool",
    "name": "set_temperature",
    "tool_call_id": "call00001",
    "content": '{"ok": true, "was": 19}',
}


def conversations():
    """Name -> what changes beside the defaults of `values`. Eight kinds; tools in the two ways that templates expect."""
    one = [{"role": "user", "content": "What is the capital of France?"}]
    turns = [
        {"role": "user", "content": " Hi there "},
        {"role": "assistant", "content": "Hello! How can I help?"},
        {"role": "user", "content": "\u4f60\u597d \U0001f600 <b>&amp;</b>\n\n  indented"},
        {"role": "assistant", "content": "<think>\nA greeting in Chinese.\n</think>\n\n\u4f60\u597d!\n"},
        {"role": "user", "content": "And now?"},
    ]
    tools = [SYSTEM, {"role": "user", "content": "Make it 21.5 degrees"}, CALL, RESULT]
    as_text = json.loads(json.dumps(tools))
    as_text[2]["tool_calls"][0]["function"]["arguments"] = json.dumps(CALL["tool_calls"][0]["function"]["arguments"])
    as_text[2]["content"] = None
    return {
        "one turn": {"messages": one},
        "system": {"messages": [SYSTEM] + one},
        "several turns": {"messages": turns},
        "consecutive user turns": {"messages": one + [{"role": "user", "content": "In one word."}]},
        "tools and results": {"messages": tools, "tools": TOOLS},
        "tools and results, arguments as text": {"messages": as_text, "tools": TOOLS},
        "assistant prefill": {
            "messages": one + [{"role": "assistant", "content": "The capital of France is "}],
            "add_generation_prompt": False,
        },
        "thinking off": {"messages": [SYSTEM] + turns, "enable_thinking": False, "thinking": False},
        "thinking on": {"messages": [SYSTEM] + turns, "enable_thinking": True, "thinking": True},
    }


def templates(folders):
    for folder in folders:
        for path in sorted(pathlib.Path(folder).glob("*.jinja")):
            source = path.read_text(encoding="utf-8")
            for name, changes in conversations().items():
                values = {"tools": None, "documents": None, "add_generation_prompt": True, "bos_token": "<s>",
                          "eos_token": "</s>", **changes}
                line = case(f"{path.name}: {name}", source, values)
                if values["messages"][-1]["role"] == "assistant":
                    line["continued"] = continued(source, values)
                yield line



# ---- Generated templates ---------------------------------------------------------------------------------------------

VALUES = {
    "s": "Hello, World",
    "t": "  padded\ttext \n",
    "u": "\u00dcn\u00efc\u00f6de \u4f60\u597d \U0001f600 \u00df\u01c6",
    "e": "",
    "c": "a,b,,c d",
    "q": "it's \"quoted\" \\ <b>&</b>",
    "l": "one\ntwo\r\n\n three\n",
    "n": 7,
    "z": 0,
    "m": -3,
    "f": 2.5,
    "g": 1e-07,
    "y": True,
    "x": False,
    "o": None,
    "a": ["b", "A", "c", "b"],
    "i": [3, 1, 2, 3],
    "v": [],
    "w": [1, "two", None, 3.5, [True, {"k": "v"}]],
    "d": {"b": 1, "A": "two", "items": [1], "c": {"x": {"y": "deep"}}},
    "k": {},
    "r": [{"role": "user", "n": 2, "t": "x"}, {"role": "assistant", "n": 1}, {"role": "user", "n": 3, "t": None}],
}
NAMES = {
    "text": "stuecql",
    "int": "nzm",
    "float": "fg",
    "bool": "yx",
    "list": "aivwr",
    "dict": "dk",
    "any": list("stueqlnzmfgyxoaivwdkr" * 2) + ["missing"],
}


class Generator:
    """Templates by kinds of values, so that most of them run; now and then any value stands where one kind belongs."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.depth = 0
        self.loops = 0
        self.locals = []
        self.n_names = 0

    def pick(self, choices):
        return self.random.choice(choices)

    def chance(self, p):
        return self.random.random() < p

    # ---- Expressions ----

    def expr(self, kind="any"):
        if self.chance(0.02):
            kind = "any"
        self.depth += 1
        try:
            if self.depth > 4 or self.chance(0.25):
                return self.leaf(kind)
            if kind == "any":
                kind = self.pick(["text", "text", "int", "float", "bool", "list", "dict"])
            return getattr(self, kind)()
        finally:
            self.depth -= 1

    def leaf(self, kind):
        if kind == "any" and self.locals and self.chance(0.4):
            return self.pick(self.locals)
        if kind in NAMES and self.chance(0.6):
            return self.pick(NAMES[kind])
        literals = {
            "text": ["'x'", '"it\'s"', "'\\n'", "'a\\tb\\\\'", "''", "'\u00e9\\u00e9'", "'%s-%s'", "'a' 'b'"],
            "int": ["0", "1", "2", "10", "-1", "1_000"],
            "float": ["1.5", "0.1", "2e3", "1e16", "3.0", "-0.25"],
            "bool": ["true", "False", "true"],
            "list": ["[]", "[1, 2]", "['x', 'y',]", "(1, 'a')", "range(4)", "range(5, 0, -2)"],
            "dict": ["{}", "{'a': 1, 'b': [2]}", "dict(p=1, q='z')"],
        }
        if kind == "any":
            kind = self.pick(list(literals))
        return self.pick(literals[kind])

    def key(self):
        return self.pick(["'b'", "'A'", "'nope'", "'c'", "'role'"])

    def text(self):
        e = self.expr
        return self.pick([
            lambda: f"{e('text')} + {e('text')}",
            lambda: f"{e()} ~ {e()}",
            lambda: f"{e('text')} * {self.pick(['2', '0', '3'])}",
            # default(...) of a variable: Jinja slices constants by other rules, while it compiles.
            lambda: f"({e('text')} | default(e))[{self.pick(['1:', ':-1', '::2', '::-1', '2:5', '-3:', '0', '-1'])}]",
            lambda: f"({e('text')} if {e('bool')} else {e('text')})",
            lambda: f"({e('text')} if {e('bool')})",
            lambda: f"({e('text')}).{self.pick(['strip', 'lstrip', 'rstrip'])}({self.pick(['', chr(39) + ' xo' + chr(39)])})",
            lambda: f"({e('text')}).{self.pick(['upper', 'lower', 'title', 'capitalize'])}()",
            lambda: f"({e('text')}).replace({e('text')}, {e('text')}{self.pick(['', ', 1'])})",
            lambda: f"({e('text')}).split({self.pick(['', chr(39) + ',' + chr(39), 'none, 1', 'sep=' + chr(39) + 'l' + chr(39)])})[{self.pick(['0', '-1'])}]",
            lambda: f"({e('text')}) | {self.pick(['trim', 'upper', 'lower', 'title', 'capitalize', 'string', 'escape', 'safe'])}",
            lambda: f"({e('text')} ~ '') | reverse",
            lambda: f"({e('text')}) | trim({self.pick([chr(39) + 'xH ' + chr(39), 'none'])})",
            lambda: f"({e('text')}) | replace({e('text')}, {e('text')})",
            lambda: f"({e('text')}) | indent({self.pick(['', '2', '2, true', '1, false, true', 'width=3, first=true', chr(39) + '> ' + chr(39)])})",
            lambda: f"({e('list')}) | join({self.pick(['', chr(39) + ', ' + chr(39), e('text')])})",
            lambda: f"({e('text')}).join({self.pick(['a', '[s, c]'])})",
            lambda: f"({e()}) | tojson{self.pick(['', '(indent=2)', '(ensure_ascii=true)', '(sort_keys=true)', '(separators=(' + chr(39) + ',' + chr(39) + ', ' + chr(39) + ':' + chr(39) + '))', '(indent=4, ensure_ascii=false)'])}",
            lambda: f"({e()}) | default({e('text')}{self.pick(['', ', true'])})",
            lambda: f"({e()}) | string",
            lambda: f"('%s|%s' % ({e()}, {e('int')}))",
            lambda: f"('{{}}-{{}}'.format({e('text')}, {e('int')}))",
            lambda: f"({e('list')} | {self.pick(['first', 'last'])})",
            lambda: f"({e('text')}).{self.pick(['removeprefix', 'removesuffix'])}({e('text')})",
            lambda: f"({e('text')}).{self.pick(['center', 'ljust', 'rjust'])}({self.pick(['9', '12, ' + chr(39) + '*' + chr(39)])})",
            lambda: f"({e('text')}).{self.pick(['partition', 'rpartition'])}({self.pick([chr(39) + 'o' + chr(39), chr(39) + ',' + chr(39)])})[2]",
        ])()

    def int(self):
        e = self.expr
        return self.pick([
            lambda: f"{e('int')} {self.pick(['+', '-', '*'])} {e('int')}",
            lambda: f"({e('int')}) {self.pick(['//', '%'])} {self.pick(['2', '3', '-2', e('int')])}",
            lambda: f"2 ** {self.pick(['3', '10', '0'])}",
            lambda: f"({self.pick([e('list'), e('text'), e('dict')])}) | {self.pick(['length', 'count'])}",
            lambda: f"({e('text')}).{self.pick(['find', 'rfind', 'count'])}({self.pick([chr(39) + 'o' + chr(39), chr(39) + chr(39), e('text')])})",
            lambda: f"({e()}) | int{self.pick(['', '(5)', '(default=-1)'])}",
            lambda: f"({e('int')}) | abs",
            lambda: f"-({e('int')})",
            lambda: f"(i | {self.pick(['sum', 'min', 'max', 'first', 'last'])})",
            lambda: f"(r | sum(attribute='n'))",
            lambda: f"(d.b)",
            lambda: f"d['items'][0]",
            lambda: f"({e('text')}) | wordcount",
        ])()

    def float(self):
        e = self.expr
        number = lambda: e(self.pick(["int", "float"]))
        return self.pick([
            lambda: f"{number()} / {self.pick(['2', '3', '0.5', number()])}",
            lambda: f"{number()} {self.pick(['+', '-', '*'])} {e('float')}",
            lambda: f"({number()}) | round{self.pick(['', '(1)', '(2)', '(0, ' + chr(39) + 'ceil' + chr(39) + ')', '(1, ' + chr(39) + 'floor' + chr(39) + ')'])}",
            lambda: f"({e()}) | float",
            lambda: f"({e('float')}) {self.pick(['//', '%'])} {self.pick(['2', '0.5', '-3'])}",
        ])()

    def bool(self):
        e = self.expr
        tests = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "iterable",
                 "sequence", "true", "false", "callable"]
        return self.pick([
            lambda: f"{e('int')} {self.pick(['<', '<=', '>', '>=', '==', '!='])} {e(self.pick(['int', 'float']))}",
            lambda: f"{e('text')} {self.pick(['<', '==', '!=', '>='])} {e('text')}",
            lambda: f"1 < {e('int')} <= 5",
            lambda: f"{e()} == {e()}",
            lambda: f"({e()}) is {self.pick(['', 'not '])}{self.pick(tests)}",
            lambda: f"({e('int')}) is {self.pick(['odd', 'even', 'divisibleby 3', 'divisibleby(2)', 'eq 1', 'gt(2)', 'in [1, 2]'])}",
            lambda: f"({e('text')}) is {self.pick(['upper', 'lower', 'equalto ' + chr(39) + 'x' + chr(39)])}",
            lambda: f"not {e('bool')}",
            lambda: f"({e()} and {e()})",
            lambda: f"({e('bool')} or {e('bool')})",
            lambda: f"{e('text')} {self.pick(['in', 'not in'])} {e(self.pick(['text', 'list', 'dict']))}",
            lambda: f"{self.key()} in {e('dict')}",
            lambda: f"({e('text')}).{self.pick(['startswith', 'endswith'])}({self.pick([e('text'), '(' + chr(39) + 'H' + chr(39) + ', ' + chr(39) + 'x' + chr(39) + ')'])})",
            lambda: f"({e('text')}).{self.pick(['isdigit', 'isalpha', 'isspace', 'isupper', 'islower', 'isalnum', 'isnumeric'])}()",
            lambda: f"missing is defined and missing.x",
        ])()

    def list(self):
        e = self.expr
        each = ["upper", "string", "length", "tojson", "trim", "int"]
        return self.pick([
            lambda: f"[{e()}, {e()}]",
            lambda: f"{e('list')} + {self.pick(['a', '[1]', 'v'])}",
            lambda: f"({e('list')} | default(v))[{self.pick(['1:', ':-1', '::-1', ':2', '1:3'])}]",
            lambda: f"({e('text')}).{self.pick(['split', 'rsplit'])}({self.pick(['', chr(39) + ',' + chr(39), chr(39) + ' ' + chr(39) + ', 1', 'none, 1'])})",
            lambda: f"({e('text')}).splitlines({self.pick(['', 'true'])})",
            lambda: f"({self.pick([e('text'), e('list'), e('dict')])}) | list",
            lambda: f"(a | map({', '.join([repr(self.pick(each))])}) | list)",
            lambda: f"(r | map(attribute='{self.pick(['role', 'n', 't', 'nope'])}'{self.pick(['', ', default=0'])}) | list)",
            lambda: f"(r | {self.pick(['selectattr', 'rejectattr'])}({self.pick([chr(39) + 't' + chr(39), chr(39) + 'role' + chr(39) + ', ' + chr(39) + 'equalto' + chr(39) + ', ' + chr(39) + 'user' + chr(39), chr(39) + 'n' + chr(39) + ', ' + chr(39) + 'gt' + chr(39) + ', 1', chr(39) + 't' + chr(39) + ', ' + chr(39) + 'defined' + chr(39)])}) | list)",
            lambda: f"(w | {self.pick(['select', 'reject'])}({self.pick(['', chr(39) + 'string' + chr(39), chr(39) + 'none' + chr(39), chr(39) + 'number' + chr(39)])}) | list)",
            lambda: f"({self.pick(['a', 'i', 'c'])} | sort{self.pick(['', '(reverse=true)', '(case_sensitive=true)'])})",
            lambda: f"(r | sort(attribute='n'{self.pick(['', ', reverse=true'])}))",
            lambda: f"({e('list')} | unique | list)",
            lambda: f"({e('list')} | reverse | list)",
            lambda: f"({e('dict')} | {self.pick(['dictsort', 'items | list'])})",
            lambda: f"({e('dict')}).{self.pick(['items', 'keys', 'values'])}() | list",
            lambda: f"({e('list')} | batch({self.pick(['2', '3, 0'])}) | list)",
            lambda: f"(r | groupby('role') | list)",
            lambda: f"({e('list')} * 2)",
        ])()

    def dict(self):
        e = self.expr
        return self.pick([
            lambda: f"{{{self.key()}: {e()}, 'z': {e()}}}",
            lambda: f"dict({e('dict')}, extra={e()})",
            lambda: f"(d.c)",
            lambda: f"(r[{self.pick(['0', '1', '-1'])}])",
            lambda: f"({e('dict')}).get({self.key()}, {{}})",
            lambda: f"({e('dict')})[{self.key()}]",
        ])()

    # ---- Statements ----

    def name(self):
        self.n_names += 1
        return f"v{self.n_names}"

    def open(self):
        return "{%" + self.pick(["", "", "-", "-", "+"])

    def close(self):
        return self.pick(["", "", "-", "-", "+"]) + "%}"

    def tag(self, words):
        return f"{self.open()} {words} {self.close()}"

    def words(self):
        return self.pick(["", "x", " ", "\n", "  \n", "\n  ", "text\n    ", " a ", "\n\n", "\t", "{ % }", "end"])

    def body(self, n=2):
        self.depth += 1
        known = len(self.locals)
        out = "".join(self.statement() for _ in range(self.random.randint(1, n)))
        del self.locals[known:]
        self.depth -= 1
        return out

    def statement(self):
        if self.depth > 3 or self.chance(0.5):
            return self.words() + self.pick([
                lambda: "{{" + self.pick(["", "-"]) + f" {self.expr()} " + self.pick(["", "-"]) + "}}",
                lambda: "{{" + self.pick(["", "-"]) + f" {self.expr('text')} " + self.pick(["", "-"]) + "}}",
                lambda: "{#" + self.pick(["", "-"]) + " note " + self.pick(["", "-"]) + "#}",
                self.set,
            ])() + self.words()
        return self.words() + self.pick([
            self.if_, self.for_, self.for_, self.set, self.set_block, self.namespace, self.macro, self.call, self.filter,
            self.with_, self.raw, self.generation,
        ])() + self.words()

    def set(self):
        name = self.name()
        value = self.expr()
        self.locals.append(name)
        if self.chance(0.15):
            other = self.name()
            self.locals.append(other)
            return self.tag(f"set {name}, {other} = {value}, {self.expr()}")
        return self.tag(f"set {name} = {value}")

    def set_block(self):
        name = self.name()
        filters = self.pick(["", " | trim", " | upper | trim", " | replace('x', 'y')"])
        out = self.tag(f"set {name}{filters}") + self.body() + self.tag("endset")
        self.locals.append(name)
        return out

    def if_(self):
        out = self.tag(f"if {self.expr('bool')}") + self.body()
        if self.chance(0.4):
            out += self.tag(f"elif {self.expr('bool')}") + self.body()
        if self.chance(0.5):
            out += self.tag("else") + self.body()
        return out + self.tag("endif")

    def for_(self):
        name = self.name()
        target, walked = name, self.expr(self.pick(["list", "list", "text", "dict"]))
        names = [name]
        if self.chance(0.2):
            other = self.name()
            names.append(other)
            target, walked = f"{name}, {other}", self.pick(["d.items()", "d | dictsort", "[(1, 2), ('a', 'b')]"])
        test = f" if {self.expr('bool')}" if self.chance(0.2) else ""
        known = len(self.locals)
        self.locals += names
        self.locals += ["loop.index", "loop.first", "loop.last", "loop.index0", "loop.length", "loop.previtem",
                        "loop.nextitem", "loop.revindex", "loop.cycle('p', 'q')", "loop.depth"]
        self.loops += 1
        body = self.body(3)
        if self.chance(0.2):
            body += self.tag(f"if {self.pick(['loop.index > 2', name + ' is string', self.expr('bool')])}") + self.tag(
                self.pick(["break", "continue"])) + self.tag("endif") + self.body(1)
        self.loops -= 1
        del self.locals[known:]
        otherwise = self.tag("else") + self.body(1) if self.chance(0.2) else ""
        return self.tag(f"for {target} in {walked}{test}") + body + otherwise + self.tag("endfor")

    def namespace(self):
        name = self.name()
        out = self.tag(f"set {name} = namespace(n=0, s={self.expr('text')})")
        out += self.tag(f"for j in {self.expr('list')}") + self.tag(f"set {name}.n = {name}.n + 1")
        out += self.words() + self.tag("endfor") + "{{ " + f"{name}.n ~ {name}.s ~ {name}.nope" + " }}"
        return out

    def macro(self):
        name = self.name()
        known = len(self.locals)
        self.locals += ["p", "q"]
        extra = self.pick(["", "{{ varargs }}", "{{ kwargs }}"])
        out = self.tag(f"macro {name}(p, q={self.expr()})") + self.body() + extra + self.tag("endmacro")
        del self.locals[known:]
        calls = [f"{name}({self.expr()})", f"{name}({self.expr()}, {self.expr()})", f"{name}(q={self.expr()}, p=1)",
                 f"{name}()", f"{name}(1, 2, 3)", f"{name}(1, z=4)", f"{name}(*[1, 2])", f"{name}(**{{'p': 5}})"]
        return out + "{{ " + self.pick(calls) + " }}"

    def call(self):
        name = self.name()
        out = self.tag(f"macro {name}(p)") + "[{{ p }}{{ caller(" + self.pick(["", "1"]) + ") }}]" + self.tag("endmacro")
        known = len(self.locals)
        signature = self.pick(["", "(h)", "(h=2)"])
        if signature:
            self.locals.append("h")
        out += self.tag(f"call{signature} {name}({self.expr()})") + self.body() + self.tag("endcall")
        del self.locals[known:]
        return out

    def filter(self):
        return self.tag(f"filter {self.pick(['upper', 'trim', 'indent(2)', 'replace(' + chr(39) + 'e' + chr(39) + ', ' + chr(39) + '3' + chr(39) + ')', 'upper | trim'])}") + self.body() + self.tag("endfilter")

    def with_(self):
        name = self.name()
        value = self.expr()
        known = len(self.locals)
        self.locals.append(name)
        out = self.tag(f"with {name} = {value}") + self.body() + self.tag("endwith")
        del self.locals[known:]
        return out

    def raw(self):
        return self.tag("raw").replace("+%}", "%}") + self.pick(["{{ x }}", " {% if %}\n", "\n #} "]) + self.tag("endraw")

    def generation(self):
        return self.tag("generation") + self.body() + self.tag("endgeneration")

    def template(self):
        return "".join(self.statement() for _ in range(self.random.randint(1, 2)))


def generated(seed, n):
    for i in range(n):
        generator = Generator(f"{seed}/{i}")
        yield case(f"seed {seed}, template {i}", generator.template(), VALUES)


def write(out, cases):
    with open(out, "w", encoding="utf-8") as file:
        for one in cases:
            file.write(json.dumps(one, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "templates":
        write(sys.argv[2], templates(sys.argv[3:]))
    elif sys.argv[1] == "random":
        write(sys.argv[2], generated(int(sys.argv[3]), int(sys.argv[4])))
    else:
        sys.exit(__doc__)
