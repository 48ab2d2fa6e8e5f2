internal import CNative
internal import X86

/// One instruction's surroundings: the registers and memory it starts from, or those it leaves. Input, native result
/// and the software CPU's result all have this form, so that they compare field by field.
///
/// A view of memory that its owner keeps: a slot of `NativeCPU`, or a `CaseBuffer`.
@safe package struct CaseRecord {
    let slot: UnsafeMutablePointer<cnative_case>

    init(_ slot: UnsafeMutablePointer<cnative_case>) { unsafe self.slot = unsafe slot }

    /// The general registers in encoding order.
    @inline(__always)
    package subscript(general number: Int) -> UInt64 {
        get { unsafe cnative_general(slot)[number & 15] }
        nonmutating set { unsafe cnative_general(slot)[number & 15] = newValue }
    }

    package var rip: UInt64 {
        get { unsafe slot.pointee.rip }
        nonmutating set { unsafe slot.pointee.rip = newValue }
    }
    package var rflags: UInt64 {
        get { unsafe slot.pointee.rflags }
        nonmutating set { unsafe slot.pointee.rflags = newValue }
    }
    package var fsBase: UInt64 {
        get { unsafe slot.pointee.fs_base }
        nonmutating set { unsafe slot.pointee.fs_base = newValue }
    }
    package var gsBase: UInt64 {
        get { unsafe slot.pointee.gs_base }
        nonmutating set { unsafe slot.pointee.gs_base = newValue }
    }
    /// The selector in CS: 0x33, or 0x23 for 32-bit code.
    package var cs: UInt64 {
        get { unsafe slot.pointee.cs }
        nonmutating set { unsafe slot.pointee.cs = newValue }
    }
    package var vector: UInt64 {
        get { unsafe slot.pointee.vector }
        nonmutating set { unsafe slot.pointee.vector = newValue }
    }
    package var error: UInt64 {
        get { unsafe slot.pointee.error }
        nonmutating set { unsafe slot.pointee.error = newValue }
    }
    package var cr2: UInt64 {
        get { unsafe slot.pointee.cr2 }
        nonmutating set { unsafe slot.pointee.cr2 = newValue }
    }
    /// How the native executor is to run it: CNATIVE_BREAKPOINT, CNATIVE_COMPATIBILITY.
    var flags: UInt64 {
        get { unsafe slot.pointee.flags }
        nonmutating set { unsafe slot.pointee.flags = newValue }
    }
    /// Where in the code page `code` starts.
    package var codeOffset: Int { unsafe Int(truncatingIfNeeded: slot.pointee.code_offset) }
    package var codeLength: Int { unsafe Int(truncatingIfNeeded: slot.pointee.code_length) }

    package var code: [UInt8] { (0..<codeLength).map { unsafe cnative_code(slot)[$0] } }

    /// Bytes of code that a record holds.
    static let longestCode = Int(CNATIVE_CODE_BYTES)

    func setCode(_ bytes: [UInt8], at offset: Int) {
        unsafe slot.pointee.code_offset = UInt64(offset)
        unsafe slot.pointee.code_length = UInt64(min(bytes.count, Self.longestCode))
        for (position, byte) in bytes.prefix(Self.longestCode).enumerated() { unsafe cnative_code(slot)[position] = byte }
    }

    /// Makes it a case that begins with `bytes`, which stand at `offset` of the code page; registers and memory are filled.
    func begin(_ bytes: [UInt8], at offset: Int, mode: CodeMode, usesBreakpoint: Bool) {
        setCode(bytes, at: offset)
        rip = Sandbox.code &+ UInt64(offset)
        flags = (usesBreakpoint ? 1 : 0) | (mode == .bits64 ? 0 : 2)
        vector = 0
        error = 0
        cr2 = 0
        cs = mode == .bits64 ? 0x33 : 0x23
        if mode != .bits64 {
            for number in 0..<16 { self[general: number] = number < 8 ? self[general: number] & 0xFFFF_FFFF : 0 }
        }
    }

    /// The FXSAVE image, 512 bytes.
    var fx: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(cnative_fxsave(slot)) }

    @inline(__always)
    package func loadFX<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type = T.self) -> T {
        unsafe fx.loadUnaligned(fromByteOffset: offset & 511, as: type)
    }
    @inline(__always)
    package func storeFX<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ offset: Int) {
        unsafe fx.storeBytes(of: value, toByteOffset: offset & 511, as: T.self)
    }

    /// The contents of the writable pages: data, data, stack.
    var memory: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(cnative_memory(slot)) }

    /// The place in `memory` of a sandbox address; nil elsewhere.
    package static func offset(of address: UInt64) -> Int? {
        if address >= Sandbox.data, address < Sandbox.data &+ 8192 { return Int(address &- Sandbox.data) }
        if address >= Sandbox.stack, address < Sandbox.stack &+ 4096 { return Int(address &- Sandbox.stack) &+ 8192 }
        return nil
    }

    /// Writes a byte of sandbox memory; nothing where it is not writable.
    package func poke(_ byte: UInt8, at address: UInt64) {
        guard let offset = Self.offset(of: address) else { return }
        unsafe memory.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
    }

    package func poke(_ value: UInt64, at address: UInt64, size: Int) {
        for position in 0..<size { poke(UInt8(truncatingIfNeeded: value &>> UInt64(position &* 8)), at: address &+ UInt64(position)) }
    }

    /// A byte of writable sandbox memory, or nil.
    package func peek(_ address: UInt64) -> UInt8? {
        guard let offset = Self.offset(of: address) else { return nil }
        return unsafe memory.loadUnaligned(fromByteOffset: offset, as: UInt8.self)
    }

    package func copy(from other: CaseRecord) { unsafe slot.update(from: other.slot, count: 1) }
}

/// The sandbox's addresses: the same in the native process and in the software CPU's guest.
package enum Sandbox {
    package static let code = UInt64(CNATIVE_CODE)
    package static let data = UInt64(CNATIVE_DATA)
    package static let readOnly = UInt64(CNATIVE_READ_ONLY)
    package static let stack = UInt64(CNATIVE_STACK)
    package static let slots = Int(CNATIVE_SLOTS)
}

/// Case records of our own.
@safe package final class CaseBuffer {
    private let base: UnsafeMutablePointer<cnative_case>
    package let count: Int

    package init(count: Int) {
        self.count = count
        let raw = UnsafeMutableRawPointer.allocate(byteCount: count &* MemoryLayout<cnative_case>.stride, alignment: 4096)
        _ = unsafe raw.initializeMemory(as: UInt8.self, repeating: 0, count: count &* MemoryLayout<cnative_case>.stride)
        unsafe base = unsafe raw.bindMemory(to: cnative_case.self, capacity: count)
    }

    deinit { unsafe UnsafeMutableRawPointer(base).deallocate() }

    package subscript(index: Int) -> CaseRecord { unsafe CaseRecord(base + min(max(index, 0), count &- 1)) }
}
