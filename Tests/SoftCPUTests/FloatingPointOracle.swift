import CHost
import Glibc
import Testing

@testable import SoftCPU

/// A machine's state as the oracle and the code under test both start from it.
struct FloatingPointState {
    /// The FXSAVE64 image.
    var image = [UInt8](repeating: 0, count: 512)
    var general = [UInt64](repeating: 0, count: 16)
    var flags: UInt64 = 2
    var faulted = false

    func field<T: FixedWidthInteger>(_ offset: Int, as _: T.Type) -> T {
        image.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
    }

    mutating func set<T: FixedWidthInteger>(_ offset: Int, _ value: T) {
        image.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: offset, as: T.self) }
    }
}

/// Executes an instruction's own bytes, not renamed, on the host's processor with a whole state loaded around it.
///
/// It shares nothing with thunks but the rule that SIGFPE continues at r11, so no instruction may use r11 or rsp.
final class FloatingPointOracle {
    private static let size = 4096
    private let code: UnsafeMutableRawPointer
    private let block: UnsafeMutableRawPointer
    private let prologue: Int
    private let epilogue: [UInt8]
    private let recovery: [UInt8]

    // The state block: image, general registers, flags, fault.
    private static let general = 512
    private static let flags = 640
    private static let fault = 648

    /// Where the instruction under test starts.
    var instructionAddress: UInt64 { UInt64(UInt(bitPattern: code)) + UInt64(prologue) }

    init() throws {
        code = try #require(
            mmap(nil, Self.size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        try #require(code != MAP_FAILED)
        block = UnsafeMutableRawPointer.allocate(byteCount: 1024, alignment: 64)
        try #require(chost_trap_floating_point(code, code + Self.size) == 0)

        func displacement(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
        /// MOV r64, [rdi + disp32] or MOV [rdi + disp32], r64.
        func move(_ register: Int, _ offset: Int, store: Bool) -> [UInt8] {
            [register > 7 ? 0x4C : 0x48, store ? 0x89 : 0x8B, UInt8((register & 7) << 3 | 0x87)] + displacement(offset)
        }
        var entry: [UInt8] = [
            0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57,  // push rbx, rbp, r12 to r15
            0x57,  // push rdi
            0x48, 0x0F, 0xAE, 0x0F,  // fxrstor64 [rdi]
            0xFF, 0xB7,
        ]
        entry += displacement(Self.flags)  // push qword [rdi + flags]
        entry += [0x9D]  // popfq
        for register in 0..<16 where ![4, 7, 11].contains(register) {
            entry += move(register, Self.general + register * 8, store: false)
        }
        // lea r11, [rip + recovery]: the recovery follows the entry, behind a jump.
        let load = move(7, Self.general + 56, store: false)
        entry += [0x4C, 0x8D, 0x1D] + displacement(load.count + 5) + load
        entry += [0xE9] + displacement(64)  // jmp over the recovery

        var after: [UInt8] = [0x9C, 0x57, 0x48, 0x8B, 0x7C, 0x24, 0x10]  // pushfq; push rdi; mov rdi, [rsp + 16]
        for register in 0..<16 where ![4, 7, 11].contains(register) {
            after += move(register, Self.general + register * 8, store: true)
        }
        after += [0x58] + move(0, Self.general + 56, store: true)  // pop rax: rdi
        after += [0x58] + move(0, Self.flags, store: true)  // pop rax: flags
        after += [0x48, 0x0F, 0xAE, 0x07, 0xDB, 0xE3]  // fxsave64 [rdi]; fninit
        after += [0x68, 0x80, 0x1F, 0, 0, 0x0F, 0xAE, 0x14, 0x24, 0x58]  // push 1F80h; ldmxcsr [rsp]; pop rax
        after += [0x5F, 0x41, 0x5F, 0x41, 0x5E, 0x41, 0x5D, 0x41, 0x5C, 0x5D, 0x5B, 0xC3]  // pop them all; ret
        epilogue = after
        // push rdi; mov rdi, [rsp + 8]; mov dword [rdi + fault], 1; pop rdi; jmp epilogue
        recovery =
            [0x57, 0x48, 0x8B, 0x7C, 0x24, 0x08, 0xC7, 0x87] + displacement(Self.fault) + [1, 0, 0, 0, 0x5F, 0xE9]
        code.copyMemory(from: entry, byteCount: entry.count)
        prologue = entry.count + 64
    }

    deinit {
        // The code stays: its range is registered for good.
        block.deallocate()
    }

    func run(_ instruction: [UInt8], _ state: inout FloatingPointState) {
        (code + prologue).copyMemory(from: instruction, byteCount: instruction.count)
        let tail = prologue + instruction.count
        (code + tail).copyMemory(from: epilogue, byteCount: epilogue.count)
        let recoveryStart = prologue - 64
        (code + recoveryStart).copyMemory(from: recovery, byteCount: recovery.count)
        let jump = recoveryStart + recovery.count
        (code + jump).storeBytes(of: Int32(tail - jump - 4), as: Int32.self)

        block.copyMemory(from: state.image, byteCount: 512)
        for register in 0..<16 {
            block.storeBytes(of: state.general[register], toByteOffset: Self.general + register * 8, as: UInt64.self)
        }
        block.storeBytes(of: state.flags, toByteOffset: Self.flags, as: UInt64.self)
        block.storeBytes(of: 0, toByteOffset: Self.fault, as: UInt64.self)
        unsafeBitCast(code, to: (@convention(c) (UnsafeMutableRawPointer) -> Void).self)(block)
        state.image = [UInt8](UnsafeRawBufferPointer(start: block, count: 512))
        for register in 0..<16 where register != 4 && register != 11 {
            state.general[register] = block.load(fromByteOffset: Self.general + register * 8, as: UInt64.self)
        }
        state.flags = block.load(fromByteOffset: Self.flags, as: UInt64.self)
        state.faulted = block.load(fromByteOffset: Self.fault, as: UInt64.self) != 0
    }
}
