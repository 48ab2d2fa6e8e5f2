#!/usr/bin/env python3
"""Writes HandlerTable.swift and VectorHandlerTable.swift: each combination of operation, width, form and liveness of flags that has a handler.

A @convention(c) function cannot be generic, so every combination is spelled out; the bodies are in Bodies.swift and
VectorBodies.swift.
Run it here after changing it; the results are checked in.
"""
W = {1: "UInt8", 4: "UInt32", 8: "UInt64"}
# A form's body and, where it has memory, the way to its address.
FORMS = ["rr", "ri", "rm", "mr", "mi", "rx", "xr", "xi"]
def body(form): return form.replace("x", "m").upper()
def way(form): return "HotIndexed.self, " if "x" in form else "HotBased.self, " if "m" in form else ""
def is_memory(form): return "m" in form or "x" in form
out = []
p = out.append
p("// Written by handlers.py. What the handlers do is in Bodies.swift.\n")
p("/// Operands' places: register and register, register and immediate, register and memory, memory and register, memory and")
p("/// immediate; with x for m, memory with an index.")
p("enum HotForm: UInt8 { case rr, ri, rm, mr, mi, rx, xr, xi }\n")
p("enum HotALU: UInt8 { case add, or, adc, sbb, and, sub, xor }\n")
p("extension Handlers {")
def name(op): return "Hot" + op.capitalize()
p("    static func alu(_ op: HotALU, _ form: HotForm, _ size: Int, live: Bool) -> Handler? {")
p("        switch op {")
for op in ["add", "or", "adc", "sbb", "and", "sub", "xor"]:
    p(f"        case .{op}: {op}(form, size, live: live)")
p("        }\n    }\n")
for op in ["add", "or", "adc", "sbb", "and", "sub", "xor"]:
    always = op in ("adc", "sbb")
    p(f"    private static func {op}(_ form: HotForm, _ size: Int, live: Bool) -> Handler? {{")
    p("        switch (form, size, live) {" if not always else "        switch (form, size) {")
    for form in FORMS:
        for size, t in W.items():
            for live in ([True] if always else [True, False]):
                l = "true" if live else "false"
                key = f"(.{form}, {size})" if always else f"(.{form}, {size}, {l})"
                p(f"        case {key}: {{ alu{body(form)}({name(op)}.self, {t}.self, {way(form)}{l}, $0, $1, $2, $3) }}")
    p("        default: nil\n        }\n    }\n")
for op, kind in [("compare", "HotSub"), ("test", "HotAnd")]:
    forms = FORMS if op == "compare" else ["rr", "ri", "mr", "mi", "xr", "xi"]
    p(f"    static func {op}(_ form: HotForm, _ size: Int) -> Handler? {{")
    p("        switch (form, size) {")
    for form in forms:
        for size, t in W.items():
            if is_memory(form):
                p(f"        case (.{form}, {size}): {{ test{body(form)}({kind}.self, {t}.self, {way(form)}$0, $1, $2, $3) }}")
            else:
                p(f"        case (.{form}, {size}): {{ cpu, op, _, _ in test{body(form)}({kind}.self, {t}.self, cpu, op) }}")
    p("        default: nil\n        }\n    }\n")
# After TEST, L and GE are S and NS: no two handlers may be alike, or the compiler merges them behind a call.
for op, kind, codes in [("compareBranch", "HotSub", [2,3,4,5,6,7,8,9,12,13,14,15]), ("testBranch", "HotAnd", [4,5,8,9,14,15])]:
    forms = FORMS if op == "compareBranch" else ["rr", "ri", "mi", "xi"]
    p(f"    static func {op}(_ form: HotForm, _ size: Int, _ code: UInt8) -> Handler? {{")
    p("        switch form {")
    for form in forms: p(f"        case .{form}: {op}{form.upper()}(size, code)")
    if len(forms) < len(FORMS): p("        default: nil")
    p("        }\n    }\n")
    for form in forms:
        p(f"    private static func {op}{form.upper()}(_ size: Int, _ code: UInt8) -> Handler? {{")
        p("        switch (size, code) {")
        for size, t in W.items():
            for code in codes:
                if is_memory(form):
                    p(f"        case ({size}, {code}): {{ branch{body(form)}({kind}.self, {t}.self, {way(form)}{code}, $0, $1, $2, $3) }}")
                else:
                    p(f"        case ({size}, {code}): {{ cpu, op, _, _ in branch{body(form)}({kind}.self, {t}.self, {code}, cpu, op) }}")
        p("        default: nil\n        }\n    }\n")
p("    static func branch(_ code: UInt8) -> Handler {")
p("        switch code {")
for c in range(16):
    p(f"        {'case %d' % c if c < 15 else 'default'}: {{ branchIf({c}, $0, $1, $2, $3) }}")
p("        }\n    }\n")
for f, body in [("moveIf", "moveIf"), ("loadIf", "loadIf")]:
    p(f"    static func {f}(_ size: Int, _ code: UInt8) -> Handler? {{")
    p("        switch (size, code) {")
    for size in (4, 8):
        for c in range(16):
            p(f"        case ({size}, {c}): {{ SoftCPU.{body}({W[size]}.self, {c}, $0, $1, $2, $3) }}")
    p("        default: nil\n        }\n    }\n")
p("    static func setIf(_ code: UInt8) -> Handler {")
p("        switch code {")
for c in range(16):
    p(f"        {'case %d' % c if c < 15 else 'default'}: {{ SoftCPU.setIf({c}, $0, $1, $2, $3) }}")
p("        }\n    }\n")
def addressed(fn, body, sizes):
    p(f"    static func {fn}(_ size: Int, indexed: Bool) -> Handler? {{")
    p("        switch (size, indexed) {")
    for s in sizes:
        for indexed in ("false", "true"):
            w = way("x" if indexed == "true" else "m")
            p(f"        case ({s}, {indexed}): {{ {body.format(t={1:'UInt8',2:'UInt16',4:'UInt32',8:'UInt64'}[s], w=w)} }}")
    p("        default: nil\n        }\n    }\n")
def simple(fn, body, sizes, types=None):
    p(f"    static func {fn}(_ size: Int) -> Handler? {{")
    p("        switch size {")
    for s in sizes: p(f"        case {s}: {{ {body.format(t={1:'UInt8',2:'UInt16',4:'UInt32',8:'UInt64'}[s])} }}")
    p("        default: nil\n        }\n    }\n")
simple("moveRR", "SoftCPU.moveRR({t}.self, $0, $1, $2, $3)", [1, 2, 4, 8])
addressed("load", "SoftCPU.load({t}.self, {w}$0, $1, $2, $3)", [1, 2, 4, 8])
addressed("store", "SoftCPU.store({t}.self, {w}$0, $1, $2, $3)", [1, 2, 4, 8])
addressed("storeI", "SoftCPU.storeI({t}.self, {w}$0, $1, $2, $3)", [1, 2, 4, 8])
addressed("loadAddress", "SoftCPU.loadAddress({t}.self, {w}$0, $1, $2, $3)", [4, 8])
simple("invert", "SoftCPU.invert({t}.self, $0, $1, $2, $3)", [4, 8])
simple("rotateI", "SoftCPU.rotateI({t}.self, $0, $1, $2, $3)", [4, 8])
simple("multiplyRM", "SoftCPU.multiplyRM({t}.self, $0, $1, $2, $3)", [4, 8])
for fn in ["negate", "multiplyRR", "multiplyRI"]:
    p(f"    static func {fn}(_ size: Int) -> Handler? {{")
    p("        switch size {")
    for s in (4, 8): p(f"        case {s}: {{ cpu, op, _, _ in SoftCPU.{fn}({W[s]}.self, cpu, op) }}")
    p("        default: nil\n        }\n    }\n")
for fn, o in [("increment", "HotAdd"), ("decrement", "HotSub")]:
    for suffix, step, ways in [("", "step", [""]), ("M", "stepM", ["m", "x"])]:
        p(f"    static func {fn}{suffix}(_ size: Int, live: Bool{', indexed: Bool' if suffix else ''}) -> Handler? {{")
        p(f"        switch (size, live{', indexed' if suffix else ''}) {{")
        for s in (4, 8):
            for l in ("true", "false"):
                for w in ways:
                    x = f", {'true' if w == 'x' else 'false'}" if suffix else ""
                    p(f"        case ({s}, {l}{x}): {{ {step}({o}.self, {W[s]}.self, {way(w)}{l}, $0, $1, $2, $3) }}")
        p("        default: nil\n        }\n    }\n")
for kind in ["left", "right", "arithmetic"]:
    p(f"    static func shift{kind.capitalize()}(_ size: Int, live: Bool) -> Handler? {{")
    p("        switch (size, live) {")
    for s in (4, 8):
        for l in ("true", "false"):
            p(f"        case ({s}, {l}): {{ shiftI(.{kind}, {W[s]}.self, {l}, $0, $1, $2, $3) }}")
    p("        default: nil\n        }\n    }\n")
    p(f"    static func shift{kind.capitalize()}ByCL(_ size: Int) -> Handler? {{")
    p("        switch size {")
    for s in (4, 8): p(f"        case {s}: {{ shiftC(.{kind}, {W[s]}.self, $0, $1, $2, $3) }}")
    p("        default: nil\n        }\n    }\n")
for fn, ways in [("extendR", [""]), ("extendM", ["m", "x"])]:
    p(f"    /// From `from` bytes to `to`.")
    more, select = (", indexed: Bool", ", indexed") if fn == "extendM" else ("", "")
    p(f"    static func {fn}(_ from: Int, _ to: Int, signed: Bool{more}) -> Handler? {{")
    p(f"        switch (from, to, signed{select}) {{")
    for frm, signed in [(1, False), (2, False), (1, True), (2, True), (4, True)]:
        src = ("Int" if signed else "UInt") + str(frm * 8)
        for to in ((4, 8) if frm < 4 else (8,)):
            for w in ways:
                x = f", {'true' if w == 'x' else 'false'}" if w else ""
                p(f"        case ({frm}, {to}, {'true' if signed else 'false'}{x}): {{ SoftCPU.{fn}({src}.self, {W[to]}.self, {way(w)}$0, $1, $2, $3) }}")
    p("        default: nil\n        }\n    }\n")
def write(name, lines):
    while lines[-1].endswith("\n"): lines[-1] = lines[-1].rstrip("\n")
    lines.append("}")
    open(name, "w").write("\n".join(lines) + "\n")
write("HandlerTable.swift", out)

# Vector instructions: operation, size of a memory operand, forms (x an XMM register, g a general one, m memory).
VECTOR = [
    ("move16", 16, "xx xm mx"), ("load4", 4, "xm xg"), ("load8", 8, "xx xm xg"), ("move4", 4, "xx mx"),
    ("move8", 8, "xx xm mx"), ("toGeneral4", 4, "gx"), ("toGeneral8", 8, "gx"), ("loadHigh", 8, "xx xm"), ("storeHigh", 8, "mx"),
    ("shuffle32", 16, "xx xm"), ("byteMask", 16, "gx"),
] + [(v, 16, "xx xm") for v in (
    "xor or and andNot add8 add16 add32 add64 subtract8 subtract16 subtract32 subtract64 equal8 equal16 equal32 "
    "greater8 greater16 greater32 minimumUnsigned8 maximumUnsigned8 unpackLow8 unpackLow16 unpackLow32 unpackLow64 "
    "unpackHigh8 unpackHigh16 unpackHigh32 unpackHigh64").split()]
V = {4: "UInt32", 8: "UInt64", 16: "SIMD2<UInt64>"}
lines = ["// Written by handlers.py. What the handlers do is in VectorBodies.swift.\n",
         "/// Operands' places: x an XMM register, g a general one, m memory, i memory with an index.",
         "enum HotVectorForm: UInt8 { case xx, xg, gx, xm, mx, xi, ix }\n", "extension Handlers {",
         "    static func vector(_ operation: HotVector, _ form: HotVectorForm) -> Handler? {", "        switch operation {"]
for v, _, _ in VECTOR: lines.append(f"        case .{v}: {v}(form)")
lines.append("        }\n    }\n")
for v, size, forms in VECTOR:
    lines.append(f"    private static func {v}(_ form: HotVectorForm) -> Handler? {{\n        switch form {{")
    for form in forms.split():
        if "m" in form:
            for name, address in ((form, "HotBased"), (form.replace("m", "i"), "HotIndexed")):
                lines.append(f"        case .{name}: {{ vector{form.upper()}(.{v}, {V[size]}.self, {address}.self, $0, $1, $2, $3) }}")
        else:
            lines.append(f"        case .{form}: {{ vector{form.upper()}(.{v}, $0, $1, $2, $3) }}")
    lines.append("        default: nil\n        }\n    }\n")
write("VectorHandlerTable.swift", lines)
