import Glibc
import Testing
import X86

@testable import SoftCPU

/// Every x87, MMX and SSE row: the same instruction here and, in its own bytes, on the host's processor.
@Suite(.serialized) struct FloatingPointTests {
    /// WINDHOVER_FP_CASES: cases a row. WINDHOVER_SEED: the seed of an earlier run.
    private static let casesPerRow = getenv("WINDHOVER_FP_CASES").flatMap { Int(String(cString: $0)) } ?? 150
    private static let seed =
        getenv("WINDHOVER_SEED").flatMap { UInt64(String(cString: $0)) } ?? UInt64.random(in: 0..<1 << 48)

    @Test func everyRowAgreesWithTheProcessor() throws {
        print("floating point: seed \(Self.seed), \(Self.casesPerRow) cases a row")
        let operations = try HostOperations.open()
        let oracle = try FloatingPointOracle()
        let bench = Bench()
        let features = HostFeatures()
        var lacking: Set<Feature> = []
        var failures = 0
        for row in RowID.all where HostOperations.covers(row) {
            var generator = CaseGenerator(state: Self.seed ^ UInt64(row.rawValue) << 48)
            guard features.has(row.feature) else {
                lacking.insert(row.feature)
                continue
            }
            var ran = 0
            for _ in 0..<Self.casesPerRow {
                guard let test = generator.makeCase(row, memoryAddress: bench.address) else { break }
                ran += 1
                let difference = bench.compare(test, operations, oracle)
                if let difference {
                    failures += 1
                    let text = test.bytes.map { String($0, radix: 16) }.joined(separator: " ")
                    Issue.record("\(row.mnemonic) (\(text)) case \(ran): \(difference)")
                    break
                }
            }
            #expect(ran > 0, "no encoding of row \(row.rawValue), \(row.mnemonic), was made: it is not covered")
            if failures > 40 { break }
        }
        if !lacking.isEmpty { print("floating point: the host lacks \(lacking)") }
    }

    /// Memory for one case, and the comparison.
    private final class Bench {
        private let memory = UnsafeMutableRawPointer.allocate(byteCount: 1024, alignment: 64)
        private let image = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
        private let general = UnsafeMutablePointer<UInt64>.allocate(capacity: 16)
        private let buffer = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
        var address: UInt64 { UInt64(UInt(bitPattern: memory)) }

        deinit {
            memory.deallocate()
            image.deallocate()
            general.deallocate()
            buffer.deallocate()
        }

        func compare(
            _ test: FloatingPointCase, _ operations: HostOperations, _ oracle: FloatingPointOracle
        ) -> String? {
            // The processor.
            var expected = test.state
            memory.copyMemory(from: test.memory, byteCount: 1024)
            oracle.run(test.bytes, &expected)
            let expectedMemory = [UInt8](UnsafeRawBufferPointer(start: memory, count: 1024))

            // Us, with the operand in a buffer and memory written as the core does it.
            guard let operation = operations.prepare(test.instruction, bytes: test.bytes) else { return "not prepared" }
            image.copyMemory(from: test.state.image, byteCount: 512)
            general.update(from: test.state.general, count: 16)
            var result = test.memory
            let range = FloatingPointCase.operandOffset..<FloatingPointCase.operandOffset + Int(operation.memorySize)
            buffer.initializeMemory(as: UInt8.self, repeating: 0xA5, count: 512)
            if operation.access == .read {
                result.withUnsafeBytes { buffer.copyMemory(from: $0.baseAddress! + range.lowerBound, byteCount: range.count) }
            }
            let outcome = operation.run(
                image, general, buffer, HostOperation.Context(flags: UInt32(truncatingIfNeeded: test.state.flags)),
                instructionPointer: oracle.instructionAddress,
                dataPointer: address + UInt64(FloatingPointCase.operandOffset))
            if operation.access == .write, outcome.storesMemory {
                for (offset, index) in range.enumerated() {
                    result[index] = buffer.load(fromByteOffset: offset, as: UInt8.self)
                }
            }
            if operation.access == .maskedWrite, outcome.isDone {
                for byte in 0..<range.count where outcome.byteMask >> UInt16(byte) & 1 != 0 {
                    result[range.lowerBound + byte] = image.load(
                        fromByteOffset: Int(operation.destination.offset) + byte, as: UInt8.self)
                }
            }

            // Faults.
            guard outcome.isDone != expected.faulted else {
                return "outcome \(String(outcome.rawValue, radix: 16)), the processor \(expected.faulted ? "faulted" : "did not fault")"
            }
            if expected.faulted {
                let pending = test.state.field(FXSaveImage.fsw, as: UInt16.self) & 0x80 != 0
                let usesX87 = operation.unit != .plain
                let want: HostOperation.Outcome = pending && usesX87 ? .x87Exception : .simdException
                if outcome != want { return "outcome \(String(outcome.rawValue, radix: 16)) is the wrong fault" }
            }
            // Registers and flags.
            for register in 0..<16 where register != 4 && register != 11 && general[register] != expected.general[register] {
                return "register \(register): \(hex(general[register])), expected \(hex(expected.general[register]))"
            }
            let flags = outcome.isDone && operation.writesFlags ? UInt64(outcome.flags) | 2 : test.state.flags
            if flags & 0x8D5 != expected.flags & 0x8D5 { return "flags \(hex(flags)), expected \(hex(expected.flags))" }
            return compareImage(expected) ?? compareMemory(test, result, expectedMemory)
        }

        private func compareImage(_ expected: FloatingPointState) -> String? {
            let actual = [UInt8](UnsafeRawBufferPointer(start: image, count: 512))
            // FOP, FIP and FDP are kept by some processors while an exception is pending only.
            if actual[0..<FXSaveImage.fop] == expected.image[0..<FXSaveImage.fop],
                actual[FXSaveImage.st..<FXSaveImage.end] == expected.image[FXSaveImage.st..<FXSaveImage.end],
                actual[FXSaveImage.mxcsr..<FXSaveImage.mxcsrMask] == expected.image[FXSaveImage.mxcsr..<FXSaveImage.mxcsrMask],
                expected.field(FXSaveImage.fsw, as: UInt16.self) & 0x80 == 0
            {
                return nil
            }
            let pointers = expected.field(FXSaveImage.fsw, as: UInt16.self) & 0x80 != 0
            for offset in 0..<FXSaveImage.end where actual[offset] != expected.image[offset] {
                if FXSaveImage.mxcsrMask..<FXSaveImage.mxcsrMask + 4 ~= offset { continue }
                if !pointers, FXSaveImage.fop..<FXSaveImage.mxcsr ~= offset { continue }
                let start = offset < 32 ? 0 : offset & ~15
                let end = offset < 32 ? 32 : start + 16
                return "image at \(offset): \(actual[start..<end].map { hex($0) }), expected \(expected.image[start..<end].map { hex($0) })"
            }
            return nil
        }

        private func compareMemory(_ test: FloatingPointCase, _ actual: [UInt8], _ expected: [UInt8]) -> String? {
            if actual == expected { return nil }
            for offset in 0..<1024 where actual[offset] != expected[offset] {
                let place = offset - FloatingPointCase.operandOffset
                // MXCSR_MASK in FXSAVE's area is ours, not the host's.
                let saves = test.instruction.mnemonic == .fxsave || test.instruction.mnemonic == .fxsave64
                if saves, FXSaveImage.mxcsrMask..<FXSaveImage.mxcsrMask + 4 ~= place { continue }
                return "memory at \(place): \(hex(actual[offset])), expected \(hex(expected[offset]))"
            }
            return nil
        }

        private func hex<T: BinaryInteger>(_ value: T) -> String { String(value, radix: 16) }
    }
}
