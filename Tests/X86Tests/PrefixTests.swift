import Testing

@testable import X86

/// What prefixes do to each other, and which of them no instruction takes.
@Suite struct PrefixTests {
    private func decode(_ bytes: [UInt8], _ mode: CodeMode = .bits64) -> Result<Instruction, DecodeError> {
        do throws(DecodeError) { return .success(try Decoder.decode(bytes.span, mode: mode)) } catch { return .failure(error) }
    }

    private func text(_ bytes: [UInt8], _ mode: CodeMode = .bits64) -> String {
        let line = Disassembler.line(bytes.span, mode: mode, at: 0x1000)
        return line.length == bytes.count || line.text == "(bad)" ? line.text : "\(line.text) and \(bytes.count - line.length) bytes"
    }

    // MARK: LOCK

    /// Source: [SDM2 LOCK]: the list of instructions, and that the destination must be memory.
    @Test func lockIsForMemoryDestinationsOfListedInstructions() {
        let lockable: Set<Mnemonic> = [
            .add, .adc, .and, .btc, .btr, .bts, .cmpxchg, .cmpxchg8b, .cmpxchg16b, .dec, .inc, .neg, .not, .or, .sbb, .sub,
            .xor, .xadd, .xchg,
        ]
        var seen: Set<Mnemonic> = []
        for row in RowID.all where row.isLockable {
            #expect(lockable.contains(row.mnemonic), "\(describe(row))")
            seen.insert(row.mnemonic)
        }
        #expect(seen == lockable)
    }

    @Test func lockElsewhereIsUndefined() {
        #expect(text([0xF0, 0x01, 0x08]) == "lock add dword ptr [rax], ecx")
        #expect(decode([0xF0, 0x01, 0xC8]) == .failure(.undefined), "a register destination")
        #expect(decode([0xF0, 0x03, 0x08]) == .failure(.undefined), "memory as the source")
        #expect(decode([0xF0, 0x39, 0x08]) == .failure(.undefined), "CMP")
        #expect(decode([0xF0, 0x89, 0x08]) == .failure(.undefined), "MOV")
        #expect(decode([0xF0, 0x90]) == .failure(.undefined), "NOP")
        #expect(decode([0xF0, 0xA4]) == .failure(.undefined), "MOVS")
        #expect(decode([0xF0, 0x0F, 0xA3, 0x08]) == .failure(.undefined), "BT")
        #expect(decode([0xF0, 0x66, 0x0F, 0xEF, 0xC0]) == .failure(.undefined), "PXOR")
        #expect(decode([0xF0, 0xD8, 0x00]) == .failure(.undefined), "FADD")
        #expect(text([0xF0, 0x87, 0x08]) == "lock xchg dword ptr [rax], ecx")
        #expect(text([0xF0, 0x48, 0x0F, 0xC7, 0x09]) == "lock cmpxchg16b xmmword ptr [rcx]")
        for mode in CodeMode.allCases {
            // Every row without LOCK refuses it, in whatever form.
            for bytes: [UInt8] in [[0xF0, 0x8D, 0x00], [0xF0, 0xEB, 0x00], [0xF0, 0xC3], [0xF0, 0xFF, 0x10]] {
                #expect(decode(bytes, mode) == .failure(.undefined))
            }
        }
    }

    // MARK: REP, and mandatory prefixes

    @Test func theLastOfF2AndF3Counts() {
        #expect(text([0xF2, 0xF3, 0xA4]) == "rep movsb byte ptr [rdi], byte ptr [rsi]")
        #expect(text([0xF3, 0xF2, 0xA6]) == "repne cmpsb byte ptr [rsi], byte ptr [rdi]")
        #expect(text([0xF3, 0xA6]) == "repe cmpsb byte ptr [rsi], byte ptr [rdi]")
        #expect(text([0xF2, 0xF3, 0x0F, 0x58, 0xC1]) == "addss xmm0, xmm1")
        #expect(text([0xF3, 0xF2, 0x0F, 0x58, 0xC1]) == "addsd xmm0, xmm1")
        // F2 and F3 outrank 66.
        #expect(text([0x66, 0xF2, 0x0F, 0x58, 0xC1]) == "addsd xmm0, xmm1")
        #expect(text([0xF3, 0x66, 0x0F, 0x58, 0xC1]) == "addss xmm0, xmm1")
        #expect(text([0x66, 0x0F, 0x58, 0xC1]) == "addpd xmm0, xmm1")
    }

    @Test func repeatabilityIsOfStringInstructionsOnly() {
        let strings: Set<Mnemonic> = [.movs, .cmps, .stos, .lods, .scas, .ins, .outs]
        for row in RowID.all {
            #expect(row.isRepeatable == strings.contains(row.mnemonic), "\(describe(row))")
            #expect(row.repeatsByZero == (row.mnemonic == .cmps || row.mnemonic == .scas), "\(describe(row))")
        }
        // On anything else F2 and F3 are part of the opcode or nothing.
        #expect(text([0xF3, 0x01, 0xC8]) == "add eax, ecx")
        #expect(text([0xF3, 0x90]) == "pause")
        #expect(text([0xF3, 0xC3]) == "ret")
        #expect(text([0xF3, 0x0F, 0xB8, 0xC1]) == "popcnt eax, ecx")
        #expect(decode([0x0F, 0xB8, 0xC1]) == .failure(.undefined))
    }

    // MARK: REX

    @Test func rexCountsOnlyNextToTheOpcode() {
        #expect(text([0x48, 0x89, 0xC8]) == "mov rax, rcx")
        #expect(text([0x48, 0x66, 0x89, 0xC8]) == "mov ax, cx")
        #expect(text([0x66, 0x48, 0x89, 0xC8]) == "mov rax, rcx", "W outranks 66")
        #expect(text([0x41, 0x48, 0x89, 0xC8]) == "mov rax, rcx", "the last REX is the one")
        #expect(text([0x88, 0xE0]) == "mov al, ah")
        #expect(text([0x40, 0x88, 0xE0]) == "mov al, spl")
        #expect(text([0x48], .bits32) == "dec eax")
        #expect(text([0x41, 0x90]) == "xchg r8d, eax")
        #expect(text([0x90]) == "nop")
        #expect(text([0x49, 0x90]) == "xchg r8, rax")
    }

    // MARK: Segments

    @Test func inLongModeOnlyFSAndGSOverride() {
        #expect(text([0x64, 0x8B, 0x00]) == "mov eax, dword ptr fs:[rax]")
        #expect(text([0x64, 0x2E, 0x8B, 0x00]) == "mov eax, dword ptr fs:[rax]")
        #expect(text([0x2E, 0x8B, 0x00]) == "mov eax, dword ptr [rax]")
        #expect(text([0x2E, 0x8B, 0x00], .bits32) == "mov eax, dword ptr cs:[eax]")
        #expect(text([0x64, 0x2E, 0x8B, 0x00], .bits32) == "mov eax, dword ptr cs:[eax]")
    }

    // MARK: VEX

    @Test func vexTakesNoOtherOpcodePrefix() {
        let plain: [UInt8] = [0xC5, 0xF0, 0x58, 0xC2]
        #expect(text(plain) == "vaddps xmm0, xmm1, xmm2")
        #expect(text([0xC4, 0xE1, 0x70, 0x58, 0xC2]) == "vaddps xmm0, xmm1, xmm2")
        #expect(text([0xC5, 0xF4, 0x58, 0xC2]) == "vaddps ymm0, ymm1, ymm2")
        for prefix: UInt8 in [0x66, 0xF2, 0xF3, 0xF0, 0x48] { #expect(decode([prefix] + plain) == .failure(.undefined)) }
        for prefix: UInt8 in [0x64, 0x67, 0x2E] { #expect((try? decode([prefix] + plain).get()) != nil) }
        // vvvv where it names nothing must be 1111; maps 0 and 4 up are none.
        #expect(text([0xC5, 0xF8, 0x10, 0x00]) == "vmovups xmm0, xmmword ptr [rax]")
        #expect(decode([0xC5, 0xF0, 0x10, 0x00]) == .failure(.undefined))
        for map: UInt8 in [0, 4, 9, 31] { #expect(decode([0xC4, 0xE0 | map, 0x70, 0x58, 0xC2]) == .failure(.undefined)) }
        // Gathers want three registers that differ.
        #expect(text([0xC4, 0xE2, 0x71, 0x92, 0x04, 0x10]).hasPrefix("vgatherdps xmm0, "))
        #expect(decode([0xC4, 0xE2, 0x79, 0x92, 0x04, 0x10]) == .failure(.undefined))
        #expect(decode([0xC4, 0xE2, 0x71, 0x92, 0x04, 0x08]) == .failure(.undefined))
        #expect(decode([0xC4, 0xE2, 0x71, 0x92, 0x00]) == .failure(.undefined), "no SIB byte")
    }

    @Test func outsideLongModeC4AndC5AreLESAndLDSWithMemory() {
        #expect(text([0xC4, 0x00], .bits32) == "les eax, fword ptr [eax]")
        #expect(text([0xC5, 0x00], .bits16) == "lds ax, dword ptr [bx+si]")
        #expect(text([0xC5, 0xF0, 0x58, 0xC2], .bits32) == "vaddps xmm0, xmm1, xmm2")
    }

    // MARK: Length

    @Test func sixteenBytesAreTooMany() {
        for mode in CodeMode.allCases {
            let nops = [UInt8](repeating: 0x67, count: 14)
            #expect((try? decode(nops + [0x90], mode).get())?.length == 15)
            #expect(decode(nops + [0x67, 0x90], mode) == .failure(.tooLong))
            #expect(decode(nops + [0x67], mode) == .failure(.tooLong))
            #expect(decode(nops, mode) == .failure(.truncated))
            #expect(decode(nops + [0x04, 0x00], mode) == .failure(.tooLong), "an immediate past the end")
            #expect(decode([UInt8](repeating: 0x66, count: 32), mode) == .failure(.tooLong))
        }
        // An instruction that fills all fifteen with prefixes that each mean something.
        let longest: [UInt8] = [0x64, 0x67, 0xF0, 0x49, 0x81, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8]
        #expect((try? decode(longest).get())?.length == 15)
        #expect(decode([0x66] + longest) == .failure(.tooLong))
    }

    @Test func noBytesAreTruncated() {
        for mode in CodeMode.allCases { #expect(decode([], mode) == .failure(.truncated)) }
    }

    // MARK: Encodings that are none

    @Test func invalidEncodings() {
        // In 64-bit mode the one-byte opcodes that it took away.
        for opcode: UInt8 in [0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0x62, 0x82, 0x9A, 0xCE, 0xD4,
            0xD5, 0xD6, 0xEA]
        {
            #expect(decode([opcode, 0, 0, 0, 0, 0, 0, 0]) == .failure(.undefined), "\(opcode)")
        }
        let none: [[UInt8]] = [
            [0x0F, 0x04], [0x0F, 0x0A], [0x0F, 0x0C], [0x0F, 0x0E], [0x0F, 0x0F, 0xC0, 0x9E], [0x0F, 0x24, 0xC0], [0x0F, 0x26, 0xC0],
            [0x0F, 0x36], [0x0F, 0x39], [0x0F, 0x7A, 0xC0], [0x0F, 0xA6, 0xC0], [0x0F, 0xA7, 0xC0],
            // LEA, LES, BOUND, CMPXCHG8B, MOVNTI and LGDT's register forms; far calls through a register.
            [0x8D, 0xC0], [0x0F, 0xC7, 0xC8], [0x0F, 0xC3, 0xC0], [0x0F, 0x01, 0xD5], [0xFF, 0xD8], [0xFF, 0xE8],
            // Groups with holes.
            [0xFE, 0xD0], [0xFF, 0xF8], [0x8F, 0xC8], [0xC6, 0xC8], [0xC7, 0xC8], [0x0F, 0xBA, 0xC0, 1], [0x0F, 0x00, 0xF0],
            [0x0F, 0x71, 0xC0, 1], [0x0F, 0x73, 0xD8, 1], [0x0F, 0xAE, 0xC0], [0x0F, 0x01, 0xE8],
            // MOV to CS, and segment registers 6 and 7; CR1 and CR5 to 7; DR8.
            [0x8E, 0xC8], [0x8C, 0xF0], [0x8E, 0xF8], [0x0F, 0x20, 0xC8], [0x0F, 0x22, 0xE8], [0x44, 0x0F, 0x21, 0xC0],
            // x87 holes.
            [0xD9, 0xD1], [0xD9, 0xE2], [0xD9, 0xEF], [0xDA, 0xE0], [0xDB, 0xE5], [0xDB, 0xF8], [0xDD, 0xF0], [0xDF, 0xE1], [0xDF, 0xF8],
            [0xD9, 0x08], [0xDB, 0x20], [0xDB, 0x30], [0xDD, 0x28],
            // Mandatory prefixes that name nothing.
            [0xF3, 0x0F, 0x54, 0xC0], [0x0F, 0x6C, 0xC0], [0xF3, 0x0F, 0x38, 0x00, 0xC0], [0x0F, 0x3A, 0x44, 0xC0, 0], [0x0F, 0xB8, 0xC0],
        ]
        for bytes in none { #expect(decode(bytes + [0, 0, 0, 0, 0, 0, 0, 0]) == .failure(.undefined), "\(hex(bytes))") }
        // EVEX and XOP: a processor without them.
        #expect(decode([0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC2]) == .failure(.undefined))
        #expect(decode([0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC2], .bits32) == .failure(.undefined))
        #expect(decode([0x8F, 0xE9, 0x78, 0x81, 0xC0]) == .failure(.undefined))
    }
}
