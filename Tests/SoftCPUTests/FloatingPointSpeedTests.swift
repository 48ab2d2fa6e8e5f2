import Glibc
import Testing
import X86

@testable import SoftCPU

/// What an instruction costs. Prints a table; WINDHOVER_FP_SPEED=1 asks for it, as figures of a busy host mean little.
@Suite(.serialized) struct FloatingPointSpeedTests {
    private static let rounds = 2_000_000

    @Test(.enabled(if: getenv("WINDHOVER_FP_SPEED") != nil)) func printNanoseconds() throws {
        let image = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
        let general = UnsafeMutablePointer<UInt64>.allocate(capacity: 16)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
        defer {
            image.deallocate()
            general.deallocate()
            memory.deallocate()
        }
        let cases: [(String, [[UInt8]])] = [
            ("pxor xmm, xmm", [[0x66, 0x0F, 0xEF, 0xC1]]),
            ("pshufb xmm, xmm", [[0x66, 0x0F, 0x38, 0x00, 0xC1]]),
            ("movaps xmm, [m]", [[0x0F, 0x28, 0x00]]),
            ("addps xmm, xmm", [[0x0F, 0x58, 0xC1]]),
            ("mulsd xmm, [m]", [[0xF2, 0x0F, 0x59, 0x00]]),
            ("cvttsd2si r, xmm", [[0xF2, 0x48, 0x0F, 0x2C, 0xC1]]),
            ("ucomisd xmm, xmm", [[0x66, 0x0F, 0x2E, 0xC1]]),
            ("pcmpistri", [[0x66, 0x0F, 0x3A, 0x63, 0xC1, 0x0C]]),
            ("crc32 r, r", [[0xF2, 0x0F, 0x38, 0xF1, 0xC1]]),
            ("paddb mm, mm", [[0x0F, 0xFC, 0xC1]]),
            ("fld m64; fstp m64", [[0xDD, 0x00], [0xDD, 0x18]]),
            ("fld m64; fadd m64; fstp m64", [[0xDD, 0x00], [0xDC, 0x00], [0xDD, 0x18]]),
            ("fld m80; fmul; fstp m80", [[0xDB, 0x28], [0xD8, 0xC8], [0xDB, 0x38]]),
            ("fxch; fxch", [[0xD9, 0xC9], [0xD9, 0xC9]]),
            ("fnstcw; fldcw", [[0xD9, 0x38], [0xD9, 0x28]]),
        ]
        let operations = try HostOperations.open()
        for (name, program) in cases {
            FXSaveImage.reset(image)
            image.storeBytes(of: 0xFF, toByteOffset: FXSaveImage.ftw, as: UInt8.self)
            if name.hasPrefix("f") { image.storeBytes(of: 0x3, toByteOffset: FXSaveImage.ftw, as: UInt8.self) }
            general.update(repeating: 1, count: 16)
            memory.initializeMemory(as: UInt8.self, repeating: 0, count: 512)
            memory.storeBytes(of: 1.25.bitPattern, as: UInt64.self)
            let prepared = try program.map { bytes in
                let instruction = try Decoder.decode(bytes, count: bytes.count, mode: .bits64)
                return try #require(operations.prepare(instruction, bytes: bytes))
            }
            var best = Double.infinity
            for _ in 0..<3 { best = min(best, prepared.nanoseconds(Self.rounds, image, general, memory)) }
            let rounded = (best / Double(prepared.count) * 10).rounded() / 10
            print("\(rounded) ns an instruction: \(name)")
        }
        let start = clock()
        for round in 0..<UInt(Self.rounds) {
            HotVector.xor.execute(
                destination: UInt(bitPattern: image) + 160, source: UInt(bitPattern: image) + 176 + (round & 16))
        }
        print("\(Double(clock() - start) / Double(Self.rounds) * 1000) ns: pxor in place, unoptimised caller")
    }
}

extension [HostOperation] {
    /// Nanoseconds for one pass over the instructions, through `run` as the core calls it.
    fileprivate func nanoseconds(
        _ rounds: Int, _ image: UnsafeMutableRawPointer, _ general: UnsafeMutablePointer<UInt64>,
        _ memory: UnsafeMutableRawPointer
    ) -> Double {
        var start = timespec()
        var end = timespec()
        clock_gettime(CLOCK_MONOTONIC, &start)
        withUnsafeBufferPointer { $0.baseAddress!.repeatForMeasurement($0.count, rounds, image, general, memory) }
        clock_gettime(CLOCK_MONOTONIC, &end)
        return Double((end.tv_sec - start.tv_sec) * 1_000_000_000 + end.tv_nsec - start.tv_nsec) / Double(rounds)
    }
}
