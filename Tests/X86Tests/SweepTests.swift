import Testing
import MonitorTesting

@testable import X86

/// All opcodes, whatever they are: what must hold of any bytes.
@Suite struct SweepTests {
    static let tail: [UInt8] = [0x24, 0xF0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x0F, 0x1E, 0x2D, 0x3C]

    /// One- and two-byte opcodes (and three-byte ones), with a selection of ModRM bytes and prefixes.
    @Test(arguments: CodeMode.allCases)
    func everyOpcode(mode: CodeMode) {
        var good = 0, bad = 0
        let prefixes: [[UInt8]] = [[], [0x66], [0xF3], [0xF2]] + (mode == .bits64 ? [[0x48], [0x66, 0x41]] : [[0x67]])
        for escape: [UInt8] in [[], [0x0F], [0x0F, 0x38], [0x0F, 0x3A]] {
            for opcode in UInt8.min...UInt8.max {
                if escape.isEmpty, opcode == 0x0F || isPrefix(opcode, mode) { continue }
                if escape == [0x0F], opcode == 0x38 || opcode == 0x3A { continue }
                for prefix in prefixes {
                    var lengths: Set<Int> = []
                    for modRM: UInt8 in [0x00, 0x0C, 0x15, 0x5A, 0x64, 0x9C, 0xC1, 0xD8, 0xE7, 0xFA] {
                        let head = prefix + escape + [opcode, modRM]
                        if let length = lawful(head + Self.tail, mode) {
                            good += 1
                            lengths.insert(length)
                        } else {
                            bad += 1
                        }
                    }
                    // Without ModRM the length cannot depend on it. C4 and C5 are VEX, or LES and LDS.
                    let map = OpcodeMap(rawValue: UInt8(escape.count == 0 ? 0 : escape.count == 1 ? 1 : escape[1] == 0x38 ? 2 : 3))!
                    let entry = OpcodeIndex.entry(map: map, opcode: opcode)
                    if entry.count > 0, !entry.hasModRM, opcode & 0xFE != 0xC4 { #expect(lengths.count <= 1) }
                }
            }
        }
        #expect(good > 20_000 && bad > 1000, "\(good) good, \(bad) bad")
    }

    @Test func randomBytes() {
        var random = SeededRandom(seed: 77)
        var good = 0
        for _ in 0..<60_000 {
            var bytes = (0..<20).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            for place in 0..<random.below(4) {
                bytes[place] = [0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x0F, 0x48, 0x41, 0x64, 0xC4, 0xC5, 0x2E][random.below(12)]
            }
            if lawful(bytes, CodeMode.allCases[random.below(3)]) != nil { good += 1 }
        }
        #expect(good > 20_000)
    }

    private func isPrefix(_ byte: UInt8, _ mode: CodeMode) -> Bool {
        switch byte {
        case 0x26, 0x2E, 0x36, 0x3E, 0x64...0x67, 0xF0, 0xF2, 0xF3: true
        case 0x40...0x4F: mode == .bits64
        default: false
        }
    }

    /// Checks what holds of every instruction; returns its length, or nil for none.
    private func lawful(_ bytes: [UInt8], _ mode: CodeMode) -> Int? {
        let instruction: Instruction
        do throws(DecodeError) {
            instruction = try Decoder.decode(bytes.span, mode: mode)
        } catch {
            #expect(error == .undefined || bytes.count >= 15 || error == .truncated)
            return nil
        }
        let length = Int(instruction.length)
        func expect(_ condition: Bool, _ law: String) {
            if !condition { Issue.record("\(hex(bytes[0..<length])) in \(mode) breaks: \(law)") }
        }
        expect(length >= 1 && length <= 15, "1 to 15 bytes")
        expect((try? Decoder.decode(bytes[0..<length].span, mode: mode)) == instruction, "what follows does not matter")
        // One byte less is never an instruction of the same start: prefix-free.
        if length > 1 {
            do throws(DecodeError) {
                _ = try Decoder.decode(bytes[0..<length - 1].span, mode: mode)
                expect(false, "no instruction is the start of another")
            } catch { expect(error == .truncated, "cut short it is truncated") }
        }
        expect(instruction.row.isValid(in: mode), "the row is one of this mode")
        expect(instruction.row.mnemonic == instruction.mnemonic, "the row tells the mnemonic")
        expect([2, 4, 8].contains(instruction.operandSize) && [2, 4, 8].contains(instruction.addressSize), "sizes")
        expect(mode == .bits64 || instruction.operandSize < 8 && instruction.addressSize < 8, "64-bit sizes in 64-bit mode only")
        expect(mode != .bits64 || instruction.addressSize > 2, "no 16-bit addresses in 64-bit mode")
        expect(Int(instruction.displacementOffset) < length && Int(instruction.immediateOffset) < length, "offsets inside")
        for position in 0..<instruction.operandCount {
            let register = instruction.register(position)
            expect((instruction.kind(position) == .register) == (register != .none), "a register where one is said to be")
            if register != .none {
                expect(!register.description.contains("?"), "the register has a name")
                if mode != .bits64, [.low8, .general16, .general32, .xmm, .ymm].contains(register.registerClass) {
                    expect(register.number < 8, "eight registers")
                }
            }
        }
        expect(!Disassembler.text(instruction, at: 0).contains("?"), "text")
        return length
    }
}
