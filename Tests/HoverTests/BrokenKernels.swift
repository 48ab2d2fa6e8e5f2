/// Files that are no kernel for this machine, each wrong in one way.
enum BrokenKernels {
    static func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    /// An ELF64 executable with one segment.
    static func elf(
        machine: UInt16 = 62, entry: UInt64 = 0x10_0000, headers: UInt64 = 64, count: UInt16 = 1, kind: UInt32 = 1,
        offset: UInt64 = 0x1000, address: UInt64 = 0x10_0000, inFile: UInt64 = 16, inMemory: UInt64 = 16,
        align: UInt64 = 0x1000, code: [UInt8] = [0xFA, 0xF4, 0xEB, 0xFC]
    ) -> [UInt8] {
        var bytes: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
        bytes += little(UInt16(2)) + little(machine) + little(UInt32(1)) + little(entry) + little(headers)
        bytes += little(UInt64(0)) + little(UInt32(0)) + little(UInt16(64)) + little(UInt16(56)) + little(count)
        bytes += little(UInt16(0)) + little(UInt16(0)) + little(UInt16(0))
        bytes += little(kind) + little(UInt32(5)) + little(offset) + little(address) + little(address)
        bytes += little(inFile) + little(inMemory) + little(align)
        bytes += [UInt8](repeating: 0, count: 0x1000 - bytes.count)
        return bytes + code + [UInt8](repeating: 0xF4, count: 4096 - code.count)
    }

    static func elf32() -> [UInt8] {
        var bytes: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 1, 1, 1] + [UInt8](repeating: 0, count: 9)
        bytes += little(UInt16(2)) + little(UInt16(3)) + little(UInt32(1)) + little(UInt32(0x10_0000))
        bytes += little(UInt32(52)) + little(UInt32(0)) + little(UInt32(0)) + little(UInt16(52)) + little(UInt16(32))
        bytes += little(UInt16(1)) + little(UInt16(0)) + little(UInt16(0)) + little(UInt16(0))
        bytes += little(UInt32(1)) + little(UInt32(0x1000)) + little(UInt32(0x10_0000)) + little(UInt32(0x10_0000))
        bytes += little(UInt32(16)) + little(UInt32(16)) + little(UInt32(5)) + little(UInt32(0x1000))
        return bytes + [UInt8](repeating: 0, count: 0x2000 - bytes.count)
    }

    /// A bzImage's header over `size` bytes, with fields set at their offsets.
    static func bzImage(size: Int = 64 << 10, _ fields: [(Int, [UInt8])]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: size)
        let header: [(Int, [UInt8])] = [
            (0x1F1, [4]),  // sectors of set-up code
            (0x1F4, little(UInt32(0x800))), (0x1FE, [0x55, 0xAA]), (0x200, [0xEB, 0x66]), (0x202, Array("HdrS".utf8)),
            (0x206, little(UInt16(0x20F))), (0x211, [1]), (0x22C, little(UInt32(0x7FFF_FFFF))),
            (0x230, little(UInt32(0x20_0000))), (0x234, [1]), (0x236, little(UInt16(0x3))),
            (0x238, little(UInt32(2047))), (0x248, little(UInt32(0x1000))), (0x24C, little(UInt32(0x1000))),
            (0x258, little(UInt64(0x100_0000))), (0x260, little(UInt32(0x100_0000))),
        ]
        for (offset, value) in header + fields where offset + value.count <= size {
            bytes.replaceSubrange(offset..<offset + value.count, with: value)
        }
        return bytes
    }

    static let arm64Image: [UInt8] = {
        var bytes = [UInt8](repeating: 0, count: 8192)
        bytes.replaceSubrange(0..<2, with: Array("MZ".utf8))
        bytes.replaceSubrange(56..<60, with: [0x41, 0x52, 0x4D, 0x64])
        return bytes
    }()

    /// Name and bytes of each.
    static let all: [(name: String, bytes: [UInt8])] = [
        ("random", (0..<100_000).map { UInt8(truncatingIfNeeded: ($0 &* 2_654_435_761) >> 13) }),
        ("text", Array("root:x:0:0:root:/root:/bin/bash\n".utf8)),
        ("one-byte", [0x7F]),
        ("elf-magic-only", [0x7F, 0x45, 0x4C, 0x46]),
        ("arm64-elf", elf(machine: 183)), ("riscv-elf", elf(machine: 243)), ("arm64-image", arm64Image),
        ("elf32-without-entry", elf32()),
        ("elf-headers-past-end", elf(headers: 1 << 40)), ("elf-headers-overflow", elf(headers: .max - 8)),
        ("elf-many-headers", elf(headers: 0x1F00, count: .max)), ("elf-nothing-to-load", elf(kind: 4)),
        ("elf-offset-overflow", elf(offset: .max - 4)), ("elf-file-size-overflow", elf(inFile: .max, inMemory: .max)),
        ("elf-longer-than-file", elf(inFile: 1 << 20, inMemory: 1 << 20)),
        ("elf-file-size-over-memory-size", elf(inFile: 64, inMemory: 16)),
        ("elf-address-overflow", elf(address: .max - 8)), ("elf-in-device-hole", elf(entry: 0xD000_0000, address: 0xD000_0000)),
        ("elf-above-memory", elf(entry: 1 << 40, address: 1 << 40)), ("elf-huge", elf(inMemory: 1 << 50)),
        ("elf-entry-outside", elf(entry: 0xFFFF_FFFF_FFFF_FFF0)),
        ("elf-truncated", Array(elf().prefix(0x1008))), ("elf-header-truncated", Array(elf().prefix(60))),
        ("bzimage-header-only", bzImage(size: 1024, [])), ("bzimage-truncated", bzImage(size: 2048, [])),
        ("bzimage-all-set-up", bzImage(size: 4096, [(0x1F1, [255])])),
        ("bzimage-old", bzImage([(0x206, little(UInt16(0x200)))])),
        ("bzimage-payload-offset", bzImage([(0x248, little(UInt32.max))])),
        ("bzimage-payload-length", bzImage([(0x24C, little(UInt32.max))])),
        ("bzimage-init-size", bzImage([(0x260, little(UInt32.max))])),
        ("bzimage-preferred-address", bzImage([(0x258, little(UInt64.max))])),
        ("bzimage-alignment", bzImage([(0x230, little(UInt32(3))), (0x258, little(UInt64(0)))])),
        ("bzimage-alignment-0", bzImage([(0x230, little(UInt32(0)))])), ("bzimage-alignment-3", bzImage([(0x230, little(UInt32(3)))])),
        ("gzip-of-nothing", [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3]), ("xz-cut", [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0, 0, 4]),
        ("zstd-cut", [0x28, 0xB5, 0x2F, 0xFD, 0]), ("lz4-cut", [0x02, 0x21, 0x4C, 0x18, 0xFF, 0xFF, 0xFF, 0x7F]),
        ("prepared-cut", Array("WNDHVRK1".utf8) + [UInt8](repeating: 0xFF, count: 64)),
    ]
}
