#!/usr/bin/env python3
"""Compares the decoder with other disassemblers. See README.md beside this file."""
import argparse, collections, pathlib, random, re, subprocess, sys, tempfile

import capstone
import iced_x86

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ADDRESS = 0x1000


def build(directory):
    """Compiles the decoder and Dump.swift into one program."""
    program = pathlib.Path(directory) / "x86dump"
    sources = [str(p) for p in sorted((ROOT / "Sources/X86").rglob("*.swift"))]
    subprocess.run(
        ["swiftc", "-O", "-wmo", "-swift-version", "6", "-parse-as-library", "-module-name", "X86Dump",
         *sources, str(HERE / "Dump.swift"), "-o", str(program)], check=True)
    return program


def ours(program, cases):
    records = b"".join(bytes([mode]) + code.ljust(16, b"\x90")[:16] for mode, code in cases)
    output = subprocess.run([program], input=records, stdout=subprocess.PIPE, check=True).stdout.decode()
    for line in output.splitlines():
        length, text = line.split("\t")
        yield int(length), text


class Iced:
    """iced-x86, set to print as the decoder's disassembler does."""

    def __init__(self):
        f = iced_x86.Formatter(iced_x86.FormatterSyntax.INTEL)
        f.hex_prefix, f.hex_suffix = "0x", ""
        f.space_after_operand_separator = True
        f.uppercase_hex = False
        f.small_hex_numbers_in_decimal = False
        f.rip_relative_addresses = True
        f.branch_leading_zeros = False
        f.use_pseudo_ops = False
        f.signed_immediate_operands = False
        f.add_leading_zero_to_hex_numbers = False
        f.signed_memory_displacements = True
        f.show_branch_size = False
        f.memory_size_options = iced_x86.MemorySizeOptions.ALWAYS
        self.formatter = f

    def decode(self, mode, code):
        decoder = iced_x86.Decoder(mode, code.ljust(16, b"\x90")[:15], ip=ADDRESS)
        instruction = decoder.decode()
        if instruction.is_invalid:
            return 0, "undefined", None
        return instruction.len, self.formatter.format(instruction), instruction


PREFIX_WORDS = re.compile(r"^(bnd|notrack|xacquire|xrelease|data16|data64|addr16|addr32|hint-taken|hint-not-taken) ")
RENAMED = {"ret far": "retf", "sal": "shl", "iret": "iret", "rdsspd": "nop", "rdsspq": "nop", "cldemote": "nop",
           "fstpnce": "fstp", "prefetchwt1": "prefetchw", "prefetch_reserved": "prefetch",
           "fnstdw": "undefined", "fnstsg": "undefined"}


def normal(text):
    """What of iced's spelling is not a matter of fact."""
    while PREFIX_WORDS.match(text):
        text = text.split(" ", 1)[1]
    text = re.sub(r"^(repe|repne|rep) (?!(movs|cmps|stos|lods|scas|ins|outs)[bwdq])", "", text)
    text = re.sub(r"^(call|jmp) far (0x[0-9a-f]+), (0x[0-9a-f]+)$", r"\1 far \3:\2", text)
    for old, new in RENAMED.items():
        text = re.sub(rf"^(lock )?{old}\b", lambda m: (m[1] or "") + new, text)
    text = re.sub(r"\b(es|cs|ss|ds|fs|gs):\[", "[", text)
    return text


def ours_normal(text):
    return re.sub(r"\b(es|cs|ss|ds|fs|gs):\[", "[", text)


def skip(instruction):
    """Extensions that the tables leave out: what iced decodes there is #UD on the processor described."""
    if instruction is None:
        return False
    info = instruction.op_code()
    if info.encoding in (iced_x86.EncodingKind.EVEX, iced_x86.EncodingKind.XOP, iced_x86.EncodingKind.D3NOW,
                         iced_x86.EncodingKind.MVEX):
        return True
    features = {iced_feature(f) for f in instruction.cpuid_features()}
    return bool(features & ABSENT)


FEATURE_NAMES = {v: k for k, v in vars(iced_x86.CpuidFeature).items() if isinstance(v, int)}
ABSENT = {"AVX512F", "AVX512VL", "AVX512BW", "AVX512DQ", "SGX1", "OSS", "CET_IBT", "CET_SS", "MPX", "RTM", "HLE_or_RTM",
          "TSX_RTM", "AMX_TILE", "AMX_INT8", "AMX_BF16", "AMX_FP16", "AMX_COMPLEX", "AVX_VNNI", "AVX_IFMA",
          "AVX_VNNI_INT8", "AVX_VNNI_INT16", "AVX_NE_CONVERT", "CMPCCXADD", "ENQCMD", "MOVDIRI", "MOVDIR64B", "WAITPKG",
          "PTWRITE", "SERIALIZE", "PCONFIG", "UINTR", "TDX", "SEAM", "KL", "AESKLE", "AESKLEWIDE_KL", "WRMSRNS", "MSRLIST", "FRED", "LKGS",
          "HRESET", "SNP", "RMPQUERY", "SEV_ES", "INVLPGB", "TSXLDTRK", "SMX", "CYRIX_EMMI", "CYRIX_SMM", "CYRIX_SMINT_0F7E",
          "CYRIX_DMI", "CYRIX_FPU", "GEODE", "PADLOCK_ACE", "PADLOCK_PHE", "PADLOCK_PMM", "PADLOCK_RNG", "PADLOCK_GMI", "D3NOW", "D3NOWEXT",
          "FMA4", "XOP", "TBM", "LWP", "CLDEMOTE_", "MCOMMIT", "RAO_INT", "PREFETCHITI", "SHA512", "SM3", "SM4", "VNNI",
          "GMI", "KNC", "CL1INVMB", "CENTAUR_AIS", "UDBG", "PBNDKB", "LOADALL286", "LOADALL386", "MOV_TR", "CMPXCHG486A",
          "HLE_or_RTM", "MVEX", "PREFETCHWT1_", "RTM", "INTEL8086_ONLY", "INTEL286_ONLY", "INTEL8086_ONLY", "IA64_", "SMINT_0F7E", "AMX_TF32", "AMX_FP8", "AMX_AVX512", "AMX_MOVRS", "AMX_TRANSPOSE", "MOVRS", "USER_MSR", "MSR_IMM",
          "AVX512_BF16", "AVX512_FP16", "AVX512CD", "AVX512ER", "AVX512PF"}


def iced_feature(value):
    return FEATURE_NAMES.get(value, str(value))


PREFIXES = [b"", b"\x66", b"\xf2", b"\xf3", b"\x67", b"\x2e", b"\x64", b"\xf0", b"\x66\xf2", b"\x66\xf3", b"\xf3\xf2", b"\xf2\xf3",
            b"\x66\x67", b"\xf0\x66", b"\xf0\xf2"]
REX = [b"\x40", b"\x41", b"\x44", b"\x48", b"\x4d", b"\x4f", b"\x42"]
TAIL = bytes.fromhex("24f088776655443322110f1e2d3c")


def exhaustive(quick):
    """Every opcode of every map, every ModRM, under every prefix that can matter, in all modes."""
    escapes = [b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a"]
    modrms = [m for m in range(256) if not quick or m & 0xC0 in (0x00, 0x40, 0xC0) and m & 7 in (0, 1, 4, 5, 6, 7)]
    for mode in (16, 32, 64):
        prefixes = list(PREFIXES)
        if mode == 64:
            prefixes += [p + r for p in (b"", b"\x66", b"\xf2", b"\xf3") for r in REX] + [b"\x48\x66", b"\xf0\x48", b"\x66\x67\x48"]
        for escape in escapes:
            for opcode in range(256):
                for prefix in prefixes:
                    for modrm in modrms:
                        yield mode, prefix + escape + bytes([opcode, modrm]) + TAIL
        for m in (1, 2, 3):
            for opcode in range(256):
                for modrm in modrms[:: 1 if not quick else 3]:
                    for last in range(256) if not quick else [b | w | v for b in range(8) for w in (0, 0x80) for v in (0x78, 0x28)]:
                        if last & 0x78 not in (0x78, 0x28, 0x38):
                            continue
                        for first in (0xE0, 0x60 | 0x80 if mode == 64 else 0xE0):
                            yield mode, bytes([0xC4, first | m, last, opcode, modrm]) + TAIL
                        if m == 1 and last & 0x80:
                            yield mode, bytes([0xC5, last, opcode, modrm]) + TAIL


def randomly(count, seed):
    rng = random.Random(seed)
    common = [0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x0F, 0x48, 0x41, 0x64, 0xC4, 0xC5, 0x2E]
    for _ in range(count):
        code = bytearray(rng.randbytes(16))
        for i in range(rng.choice((0, 0, 1, 1, 2, 3, 5))):
            code[i] = rng.choice(common)
        yield rng.choice((16, 32, 64)), bytes(code)


def compiled(path, mode, limit):
    """The instructions of an executable section, as our own lengths delimit them."""
    data = pathlib.Path(path).read_bytes()[:limit]
    iced = iced_x86.Decoder(mode, data, ip=ADDRESS)
    position = 0
    while position < len(data) - 16:
        iced.position = position
        instruction = iced.decode()
        yield mode, data[position:position + 15]
        position += instruction.len if not instruction.is_invalid else 1


def compare(program, cases, report):
    iced = Iced()
    batch = []
    total = wrong = 0
    kinds = collections.OrderedDict()

    def flush():
        nonlocal total, wrong
        for (mode, code), (length, text) in zip(batch, ours(program, batch)):
            total += 1
            their_length, their_text, instruction = iced.decode(mode, code)
            mine = "undefined" if length == 0 else ours_normal(text)
            theirs = "undefined" if their_length == 0 else normal(their_text)
            if theirs.startswith("undefined"):
                theirs, their_length = "undefined", 0
            if length == their_length and mine == theirs:
                continue
            if length == 0 and skip(instruction):
                continue
            wrong += 1
            key = (mine.split(" ")[0], theirs.split(" ")[0], length == their_length)
            entry = kinds.setdefault(key, [0, []])
            entry[0] += 1
            if len(entry[1]) < report:
                entry[1].append((mode, code.hex(" "), f"{length} {mine}", f"{their_length} {their_text}"))
        batch.clear()

    for case in cases:
        batch.append(case)
        if len(batch) == 400_000:
            flush()
            print(f"{total} compared, {wrong} differ", file=sys.stderr)
    flush()
    for (mine, theirs, same), (count, examples) in sorted(kinds.items(), key=lambda kv: -kv[1][0]):
        print(f"{count:8} {mine} | {theirs}{'' if same else ' (length)'}")
        for mode, code, a, b in examples:
            print(f"         {mode} {code[:40]} | {a} | {b}")
    print(f"{total} compared, {wrong} differ")
    return wrong == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", help="an x86dump built before")
    parser.add_argument("--exhaustive", action="store_true")
    parser.add_argument("--quick", action="store_true", help="with --exhaustive: a selection of ModRM bytes")
    parser.add_argument("--random", type=int, default=0, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--code", metavar="FILE", help="raw code bytes, such as objcopy -O binary writes")
    parser.add_argument("--mode", type=int, default=64)
    parser.add_argument("--limit", type=int, default=1 << 30)
    parser.add_argument("--report", type=int, default=2, help="examples of each difference")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        program = arguments.program or build(directory)
        good = True
        if arguments.exhaustive:
            good &= compare(program, exhaustive(arguments.quick), arguments.report)
        if arguments.random:
            good &= compare(program, randomly(arguments.random, arguments.seed), arguments.report)
        if arguments.code:
            good &= compare(program, compiled(arguments.code, arguments.mode, arguments.limit), arguments.report)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
