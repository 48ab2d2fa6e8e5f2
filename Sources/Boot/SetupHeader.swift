import VMCore

/// The setup header of a Linux kernel: what the kernel tells a boot loader about itself, and the fields the loader
/// fills in. It lies at 0x1F1 both in a bzImage and in the boot parameters, and offsets here are those.
/// Source: [LINUX-BOOT] the real-mode kernel header, details of header fields.
struct SetupHeader: Hashable, Sendable {
    static let start = 0x1F1
    /// The EDD buffers follow; a header that claims to reach further is cut.
    static let end = 0x290

    /// The header's bytes, `end - start` of them, zeros past what the kernel gave.
    private(set) var bytes = [UInt8](repeating: 0, count: end - start)

    /// The header a bare vmlinux would have had. The kernel reads its own protocol's fields only.
    static var forVmlinux: SetupHeader {
        var header = SetupHeader()
        header.set(UInt16(0xAA55), at: 0x1FE)
        header.set(magic, at: 0x202)
        header.set(UInt16(0x20F), at: 0x206)
        header.set(UInt8(1), at: 0x211)  // LOADED_HIGH
        header.set(UInt32(0x7FFF_FFFF), at: 0x22C)
        header.set(UInt32(0x100_0000), at: 0x230)
        header.set(UInt16(3), at: 0x236)  // 64-bit, may be above 4 GiB
        header.set(UInt32(2047), at: 0x238)
        return header
    }

    static let magic: UInt32 = 0x5372_6448  // "HdrS"

    private init() {}

    /// Reads the header out of a bzImage, whose magic the caller has seen.
    init(image: ImageBytes) throws(BootError) {
        // The jump over the header tells where it ends: 0x202 and the jump's displacement.
        let displacement = UInt64(try image.field(UInt8.self, at: 0x201))
        let stop = min(0x202 + displacement, UInt64(Self.end))
        let part = try image.part(at: UInt64(Self.start), count: stop - UInt64(Self.start))
        self.init(prefix: part.array)
    }

    /// A header from its bytes; excess is cut, what is missing is zero.
    init(prefix: [UInt8]) {
        for (index, byte) in prefix.prefix(bytes.count).enumerated() { bytes[index] = byte }
    }

    func field<Value: FixedWidthInteger>(_ type: Value.Type, at offset: Int) -> Value {
        var value: Value = 0
        for index in 0..<MemoryLayout<Value>.size {
            value |= Value(truncatingIfNeeded: bytes[offset - Self.start + index]) << Value(8 * index)
        }
        return value
    }

    mutating func set<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        for index in 0..<MemoryLayout<Value>.size {
            bytes[offset - Self.start + index] = UInt8(truncatingIfNeeded: value >> Value(8 * index))
        }
    }

    /// Bytes of boot sector and real-mode code before the protected-mode kernel.
    var setupSize: UInt64 {
        let sectors = field(UInt8.self, at: 0x1F1)
        // Zero stands for four, since the very first kernels.
        return (UInt64(sectors == 0 ? 4 : sectors) + 1) * 512
    }
    /// Bytes of protected-mode kernel.
    var systemSize: UInt64 { UInt64(field(UInt32.self, at: 0x1F4)) * 16 }
    /// Boot protocol, major in the high byte.
    var version: UInt16 { field(UInt16.self, at: 0x206) }
    var isLoadedHigh: Bool { field(UInt8.self, at: 0x211) & 1 != 0 }
    /// Where the protected-mode kernel asks to be entered when it lies where it was linked to. Zero, which is no kernel's, in
    /// programs that lend themselves the header so as to be loaded, and have but a real-mode entry.
    var start32: UInt32 { field(UInt32.self, at: 0x214) }
    /// Highest address an initrd's byte may have.
    var initrdLimit: UInt64 {
        let limit = UInt64(field(UInt32.self, at: 0x22C))
        return version >= 0x203 && limit > 0 ? limit : 0x37FF_FFFF
    }
    /// Zero in kernels older than the field.
    var alignment: UInt32 { version >= 0x205 ? field(UInt32.self, at: 0x230) : 0 }
    var isRelocatable: Bool { version >= 0x205 && field(UInt8.self, at: 0x234) != 0 }
    private var loadFlags: UInt16 { version >= 0x20C ? field(UInt16.self, at: 0x236) : 0 }
    var has64BitEntry: Bool { loadFlags & 1 != 0 }
    /// Whether kernel, initrd and command line may lie above 4 GiB.
    var mayLieAbove4GiB: Bool { loadFlags & 2 != 0 }
    /// Command line bytes, without the terminating zero.
    var commandLineLimit: UInt64 { version >= 0x206 ? UInt64(field(UInt32.self, at: 0x238)) : 255 }
    /// The compressed kernel proper, relative to the protected-mode kernel; count 0 where there is none.
    var payload: (offset: UInt64, count: UInt64) {
        guard version >= 0x208 else { return (0, 0) }
        return (UInt64(field(UInt32.self, at: 0x248)), UInt64(field(UInt32.self, at: 0x24C)))
    }
    /// Where the kernel was linked to run.
    var preferredAddress: UInt64 { version >= 0x20A ? field(UInt64.self, at: 0x258) : 0x10_0000 }
    /// Bytes the kernel uses from where it runs before it looks at the memory map. 0 where it does not say.
    var initSize: UInt64 { version >= 0x20A ? UInt64(field(UInt32.self, at: 0x260)) : 0 }
}
