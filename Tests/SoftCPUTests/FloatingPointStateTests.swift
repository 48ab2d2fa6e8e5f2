import CHost
import Glibc
import MonitorTesting
import Testing
import X86

@testable import SoftCPU

/// State that is saved, restored, reset and guarded: what comparing single instructions on the host does not show.
@Suite struct FloatingPointStateTests {
    /// A vCPU's floating-point state with an operand buffer, and instructions executed on it by their bytes.
    private final class Machine {
        let image = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
        let general = UnsafeMutablePointer<UInt64>.allocate(capacity: 16)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
        let operations: HostOperations
        var mode = CodeMode.bits64
        var context = HostOperation.Context()

        init() throws {
            operations = try HostOperations.open()
            FXSaveImage.reset(image)
            general.update(repeating: 0, count: 16)
            memory.initializeMemory(as: UInt8.self, repeating: 0xA5, count: 512)
        }

        deinit {
            image.deallocate()
            general.deallocate()
            memory.deallocate()
        }

        func operation(_ bytes: [UInt8]) throws -> HostOperation {
            let instruction = try Decoder.decode(bytes, count: bytes.count, mode: mode)
            #expect(Int(instruction.length) == bytes.count)
            return try #require(operations.prepare(instruction, bytes: bytes))
        }

        @discardableResult
        func run(_ bytes: UInt8..., ip: UInt64 = 0x1234_5678_9ABC, dp: UInt64 = 0x7654_3210) throws -> HostOperation.Outcome {
            try operation(bytes).run(image, general, memory, context, instructionPointer: ip, dataPointer: dp)
        }

        subscript<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: T.Type) -> T {
            get { image.loadUnaligned(fromByteOffset: offset, as: T.self) }
            set { image.storeBytes(of: newValue, toByteOffset: offset, as: T.self) }
        }

        func stored<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: T.Type) -> T {
            memory.loadUnaligned(fromByteOffset: offset, as: T.self)
        }

        /// Flags an unmasked division by zero: 1 / 0.
        func divideByZero() throws {
            try run(0xDB, 0xE3)
            memory.storeBytes(of: 0x037B, as: UInt16.self)
            try run(0xD9, 0x28)  // fldcw [rax]
            try run(0xD9, 0xE8)  // fld1
            try run(0xD9, 0xEE)  // fldz
            try run(0xDE, 0xF9, ip: 0x5555_1234_5678)  // fdivp
        }
    }

    // MARK: Reserved bits

    @Test func reservedBitsOfMXCSRFault() throws {
        let machine = try Machine()
        for bit in 16..<32 {
            machine.memory.storeBytes(of: 0x1F80 | 1 << UInt32(bit), as: UInt32.self)
            #expect(try machine.run(0x0F, 0xAE, 0x10) == .generalProtection, "LDMXCSR, bit \(bit)")
            machine.memory.storeBytes(of: 0x1F80 | 1 << UInt32(bit), toByteOffset: FXSaveImage.mxcsr, as: UInt32.self)
            let before = [UInt8](UnsafeRawBufferPointer(start: machine.image, count: 512))
            #expect(try machine.run(0x0F, 0xAE, 0x08) == .generalProtection, "FXRSTOR, bit \(bit)")
            #expect(try machine.run(0x48, 0x0F, 0xAE, 0x08) == .generalProtection, "FXRSTOR64, bit \(bit)")
            #expect(difference(of: before, from: [UInt8](UnsafeRawBufferPointer(start: machine.image, count: 512))) == nil)
        }
        machine.memory.storeBytes(of: 0xFFFF, as: UInt32.self)
        #expect(try machine.run(0x0F, 0xAE, 0x10) == .done)
        #expect(machine[FXSaveImage.mxcsr, UInt32.self] == 0xFFFF)
    }

    /// Whatever a snapshot holds, what is made of it can be executed on.
    @Test func anyImageCanBeMadeCanonical() throws {
        let machine = try Machine()
        var generator = CaseGenerator(state: 77)
        for _ in 0..<200 {
            for offset in 0..<512 { machine[offset, UInt8.self] = UInt8(truncatingIfNeeded: generator.next()) }
            FXSaveImage.canonicalise(machine.image)
            let again = [UInt8](UnsafeRawBufferPointer(start: machine.image, count: 512))
            FXSaveImage.canonicalise(machine.image)
            #expect(difference(of: again, from: [UInt8](UnsafeRawBufferPointer(start: machine.image, count: 512))) == nil)
            #expect(machine[FXSaveImage.mxcsr, UInt32.self] & ~0xFFFF == 0)
            // addps, and fadd, which raises what is pending.
            #expect(try [.done, .simdException].contains(machine.run(0x0F, 0x58, 0xC1)))
            let pending = FXSaveImage.isX87ExceptionPending(machine.image)
            #expect(try (machine.run(0xD8, 0xC1) == .x87Exception) == pending)
        }
    }

    // MARK: Pointers

    /// No host address ever gets into what a guest can read.
    @Test func pointersAreTheGuests() throws {
        let machine = try Machine()
        machine.memory.storeBytes(of: 1.5.bitPattern, as: UInt64.self)
        try machine.run(0xDD, 0x43, 0x08, ip: 0x1111_2222_3333, dp: 0x4444_5555)  // fld qword [rbx + 8]
        #expect(machine[FXSaveImage.fop, UInt16.self] == 0x543)
        #expect(machine[FXSaveImage.fip, UInt64.self] == 0x1111_2222_3333)
        #expect(machine[FXSaveImage.fdp, UInt64.self] == 0x4444_5555)
        try machine.run(0xD8, 0xC8, ip: 0xFFFF_8000_0000_0010, dp: 0xDEAD)  // fmul st0, st0: FDP stays
        #expect(machine[FXSaveImage.fop, UInt16.self] == 0x0C8)
        #expect(machine[FXSaveImage.fip, UInt64.self] == 0xFFFF_8000_0000_0010)
        #expect(machine[FXSaveImage.fdp, UInt64.self] == 0x4444_5555)
        // Control instructions leave all three.
        try machine.run(0xD9, 0x28, ip: 1, dp: 2)  // fldcw
        try machine.run(0x9B, ip: 1, dp: 2)  // fwait
        try machine.run(0xDF, 0xE0, ip: 1, dp: 2)  // fnstsw ax
        #expect(machine[FXSaveImage.fip, UInt64.self] == 0xFFFF_8000_0000_0010)
        // A prefix is no part of FOP.
        try machine.run(0x66, 0x48, 0xD9, 0xE1)
        #expect(machine[FXSaveImage.fop, UInt16.self] == 0x1E1)
    }

    @Test func fxsaveWithoutWideOperandHoldsShortPointers() throws {
        let machine = try Machine()
        try machine.run(0xD9, 0x00, ip: 0x1111_2222_3333, dp: 0x9999_4444_5555)  // fld dword [rax]
        try machine.run(0x0F, 0xAE, 0x00)
        #expect(machine.stored(FXSaveImage.fip, UInt64.self) == 0x2222_3333)
        #expect(machine.stored(FXSaveImage.fdp, UInt64.self) == 0x4444_5555)
        #expect(machine.stored(FXSaveImage.mxcsrMask, UInt32.self) == 0xFFFF)
        #expect(machine.stored(416, UInt8.self) == 0xA5)
        try machine.run(0x48, 0x0F, 0xAE, 0x00)
        #expect(machine.stored(FXSaveImage.fip, UInt64.self) == 0x1111_2222_3333)
        #expect(machine.stored(FXSaveImage.fdp, UInt64.self) == FXSaveImage.pointer(0x9999_4444_5555))
    }

    @Test func fxsaveOutside64BitModeHasEightVectorRegisters() throws {
        let machine = try Machine()
        machine.mode = .bits32
        let operation = try machine.operation([0x0F, 0xAE, 0x00])
        #expect(operation.memorySize == 288 && operation.access == .write && operation.requiresAlignment)
        for register in 0..<16 { machine[FXSaveImage.xmm + register * 16, UInt64.self] = UInt64(register + 1) }
        try machine.run(0x0F, 0xAE, 0x00)
        #expect(machine.stored(FXSaveImage.xmm + 7 * 16, UInt64.self) == 8)
        #expect(machine.stored(FXSaveImage.legacyEnd, UInt64.self) == 0xA5A5_A5A5_A5A5_A5A5)
        for register in 0..<16 { machine[FXSaveImage.xmm + register * 16, UInt64.self] = 99 }
        try machine.run(0x0F, 0xAE, 0x08)
        #expect(machine[FXSaveImage.xmm + 7 * 16, UInt64.self] == 8)
        #expect(machine[FXSaveImage.xmm + 8 * 16, UInt64.self] == 99)
    }

    // MARK: Environments

    /// Source: [SDM1 §8.1.10, Figures 8-9 to 8-12].
    @Test func environmentHasFourFormats() throws {
        let machine = try Machine()
        func prepare(real: Bool) throws {
            machine.context = HostOperation.Context(realAddress: real)
            machine.mode = .bits32
            try machine.run(0xDB, 0xE3)
            machine.memory.storeBytes(of: 1, as: UInt32.self)
            try machine.run(0xD9, 0x07, ip: 0x000A_BCDE, dp: 0x0003_2104)  // fld dword [edi]: a denormal
            machine.memory.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
        }
        let opcode: UInt32 = 0x107

        try prepare(real: false)
        try machine.run(0xD9, 0x37)
        #expect(machine.stored(0, UInt32.self) == 0xFFFF_037F)
        #expect(machine.stored(4, UInt32.self) == 0xFFFF_3802)  // TOP 7, DE
        #expect(machine.stored(8, UInt32.self) == 0xFFFF_3FFF)  // R7 valid
        #expect(machine.stored(12, UInt32.self) == 0x000A_BCDE)
        #expect(machine.stored(16, UInt32.self) == opcode << 16)
        #expect(machine.stored(20, UInt32.self) == 0x0003_2104)

        try prepare(real: true)
        try machine.run(0xD9, 0x37)
        #expect(machine.stored(12, UInt16.self) == 0xBCDE)
        #expect(machine.stored(16, UInt32.self) == 0x000A << 12 | opcode)
        #expect(machine.stored(20, UInt16.self) == 0x2104)
        #expect(machine.stored(24, UInt32.self) == 0x0003 << 12)

        try prepare(real: false)
        try machine.run(0x66, 0xD9, 0x37)
        #expect((0..<7).map { machine.stored($0 * 2, UInt16.self) } == [0x037F, 0x3802, 0x3FFF, 0xBCDE, 0, 0x2104, 0])
        #expect(machine.stored(14, UInt16.self) == 0)

        try prepare(real: true)
        try machine.run(0x66, 0xD9, 0x37)
        #expect(
            (0..<7).map { machine.stored($0 * 2, UInt16.self) }
                == [0x037F, 0x3802, 0x3FFF, 0xBCDE, 0xA000 | UInt16(opcode), 0x2104, 0x3000])
    }

    /// FNSAVE, FNINIT, FRSTOR in each format: all comes back that the format holds.
    @Test func stateComesBack() throws {
        for (short, real) in [(false, false), (false, true), (true, false), (true, true)] {
            let machine = try Machine()
            machine.mode = .bits32
            machine.context = HostOperation.Context(realAddress: real)
            try machine.run(0xD9, 0xEB)  // fldpi
            try machine.run(0xD9, 0xE8)  // fld1
            try machine.run(0xD9, 0xEE, ip: 0xF_4321)  // fldz
            let before = [UInt8](UnsafeRawBufferPointer(start: machine.image, count: 512))
            let prefix: [UInt8] = short ? [0x66] : []
            let save = try machine.operation(prefix + [0xDD, 0x37])
            #expect(Int(save.memorySize) == (short ? 94 : 108))
            let restore = try machine.operation(prefix + [0xDD, 0x27])
            #expect(restore.memorySize == save.memorySize && restore.access == .read && save.access == .write)
            func run(_ operation: HostOperation) -> HostOperation.Outcome {
                operation.run(
                    machine.image, machine.general, machine.memory, machine.context, instructionPointer: 0, dataPointer: 0)
            }
            #expect(run(save) == .done)
            #expect(machine[FXSaveImage.fcw, UInt16.self] == 0x37F && machine[FXSaveImage.ftw, UInt8.self] == 0)
            #expect(run(restore) == .done)
            var after = [UInt8](UnsafeRawBufferPointer(start: machine.image, count: 512))
            if short, !real {
                // Sixteen bits of FIP and no FOP.
                #expect(machine[FXSaveImage.fip, UInt64.self] == 0x4321)
                after.replaceSubrange(FXSaveImage.fop..<FXSaveImage.mxcsr, with: before[FXSaveImage.fop..<FXSaveImage.mxcsr])
            }
            after.replaceSubrange(28..<32, with: before[28..<32])
            #expect(difference(of: before, from: after) == nil, "short \(short), real \(real)")
        }
    }

    // MARK: Exceptions

    @Test func unmaskedX87ExceptionWaitsForTheNextWaitingInstruction() throws {
        let machine = try Machine()
        try machine.divideByZero()
        #expect(machine[FXSaveImage.fsw, UInt16.self] & 0x8084 == 0x8084)
        // Non-waiting instructions go on.
        #expect(try machine.run(0xDF, 0xE0) == .done)
        #expect(machine.general[0] & 0x8084 == 0x8084)
        #expect(try machine.run(0x0F, 0x58, 0xC1) == .done)  // addps
        // Waiting ones do not, and FIP is still the culprit's.
        for bytes in [[0x9B], [0xD9, 0xE8], [0xD9, 0x28], [0x0F, 0x77], [0x0F, 0xEF, 0xC1]] as [[UInt8]] {
            let outcome = try machine.operation(bytes).run(
                machine.image, machine.general, machine.memory, machine.context, instructionPointer: 1, dataPointer: 2)
            #expect(outcome == .x87Exception)
        }
        #expect(machine[FXSaveImage.fip, UInt64.self] == 0x5555_1234_5678)
        #expect(try machine.run(0xDB, 0xE2) == .done)  // fnclex
        #expect(try machine.run(0x9B) == .done)
    }

    /// FST of a value too large, overflow unmasked: neither memory nor the stack changes.
    @Test func unmaskedExceptionKeepsAStoreFromMemory() throws {
        let machine = try Machine()
        machine.memory.storeBytes(of: 0x0377, as: UInt16.self)
        try machine.run(0xD9, 0x28)  // fldcw [rax]: OM clear
        machine.memory.storeBytes(of: 1e300.bitPattern, as: UInt64.self)
        try machine.run(0xDD, 0x00)  // fld qword [rax]
        machine.memory.storeBytes(of: 0xA5A5_A5A5, as: UInt32.self)
        #expect(try machine.run(0xD9, 0x18) == .memoryUntouched)  // fstp dword [rax]
        #expect(machine.stored(0, UInt32.self) == 0xA5A5_A5A5)
        #expect(machine[FXSaveImage.fsw, UInt16.self] >> 11 & 7 == 7)
    }

    @Test func unmaskedSIMDExceptionLeavesTheDestination() throws {
        let machine = try Machine()
        machine[FXSaveImage.xmm, UInt32.self] = Float(1).bitPattern
        machine[FXSaveImage.xmm + 16, UInt32.self] = Float(0).bitPattern
        machine[FXSaveImage.mxcsr, UInt32.self] = 0x1D80  // ZM clear
        #expect(try machine.run(0xF3, 0x0F, 0x5E, 0xC1) == .simdException)  // divss xmm0, xmm1
        #expect(machine[FXSaveImage.xmm, UInt32.self] == Float(1).bitPattern)
        #expect(machine[FXSaveImage.mxcsr, UInt32.self] == 0x1D84)
        // What is flagged already raises nothing.
        #expect(try machine.run(0xF3, 0x0F, 0x58, 0xC1) == .done)
    }

    /// What runs after a thunk finds the processor as the calling convention has it.
    @Test func theHostsOwnStateComesThrough() throws {
        let machine = try Machine()
        machine[FXSaveImage.mxcsr, UInt32.self] = 0xFFC0  // round to zero, FTZ, DAZ
        machine[FXSaveImage.fcw, UInt16.self] = 0x0F40
        machine[FXSaveImage.xmm, UInt32.self] = Float(1).bitPattern
        try machine.run(0x0F, 0x5E, 0xC0)
        try machine.run(0xD9, 0xE8)
        try machine.run(0x0F, 0xEF, 0xC1)
        var third = 1.0
        third /= Double(machine.general[5] + 3)
        #expect(third.bitPattern == 0x3FD5_5555_5555_5555)
        let tiny = Double.leastNonzeroMagnitude * Double(machine.general[5] + 1)
        #expect(tiny != 0)
        let long = Float80(machine.general[5] + 1) / 3
        #expect(long.significandBitPattern == 0x2AAA_AAAA_AAAA_AAAB)
    }

    // MARK: What the core must know

    @Test func memoryOperandsAreDescribed() throws {
        let machine = try Machine()
        func check(_ bytes: [UInt8], _ size: Int, _ access: HostOperation.MemoryAccess, aligned: Bool = false) throws {
            let operation = try machine.operation(bytes)
            #expect(Int(operation.memorySize) == size && operation.access == access, "\(bytes)")
            #expect(operation.requiresAlignment == aligned, "\(bytes)")
        }
        try check([0x0F, 0x28, 0x00], 16, .read, aligned: true)  // movaps xmm0, [rax]
        try check([0x0F, 0x10, 0x00], 16, .read)  // movups
        try check([0x0F, 0x29, 0x00], 16, .write, aligned: true)
        try check([0x0F, 0x2B, 0x00], 16, .write, aligned: true)  // movntps
        try check([0xF2, 0x0F, 0xF0, 0x00], 16, .read)  // lddqu
        try check([0x66, 0x0F, 0x3A, 0x63, 0x00, 0x0C], 16, .read)  // pcmpistri
        try check([0xF3, 0x0F, 0x58, 0x00], 4, .read)  // addss
        try check([0x0F, 0x58, 0xC1], 0, .none)
        try check([0xDB, 0x38], 10, .write)  // fstp tbyte
        try check([0xDF, 0x28], 8, .read)  // fild qword
        try check([0x66, 0x0F, 0x3A, 0x14, 0x00, 3], 1, .write)  // pextrb
        try check([0x66, 0x0F, 0xF7, 0xC1], 16, .maskedWrite)
        try check([0x0F, 0xF7, 0xC1], 8, .maskedWrite)
        try check([0x48, 0x0F, 0xAE, 0x08], 416, .read, aligned: true)
        try check([0x0F, 0xAE, 0x18], 4, .write)  // stmxcsr
        #expect(MemoryLayout<HostOperation>.stride == 24)
    }

    /// Prepared and run by several threads at once, each on its own state.
    @Test func threadsShareThunks() async throws {
        let operations = try HostOperations.open()
        let sums = await withTaskGroup(of: UInt32.self) { group in
            for thread in 0..<4 {
                group.addTask {
                    let image = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
                    let general = UnsafeMutablePointer<UInt64>.allocate(capacity: 16)
                    defer {
                        image.deallocate()
                        general.deallocate()
                    }
                    FXSaveImage.reset(image)
                    image.storeBytes(of: UInt32(thread), toByteOffset: FXSaveImage.xmm + 16, as: UInt32.self)
                    for immediate in 0..<256 {
                        // pshufd xmm2, xmm1, immediate; paddd xmm0, xmm2
                        for bytes in [[0x66, 0x0F, 0x70, 0xD1, UInt8(immediate)], [0x66, 0x0F, 0xFE, 0xC2]] as [[UInt8]] {
                            guard let instruction = try? Decoder.decode(bytes, count: bytes.count, mode: .bits64),
                                let operation = operations.prepare(instruction, bytes: bytes)
                            else { return 0 }
                            _ = operation.runPlain(image, general, image)
                        }
                    }
                    return image.load(fromByteOffset: FXSaveImage.xmm, as: UInt32.self)
                }
            }
            var result: [UInt32] = []
            for await sum in group { result.append(sum) }
            return result.sorted()
        }
        // A quarter of the immediates select element 0 for the lowest lane.
        #expect(sums == [0, 64, 128, 192])
    }
}
