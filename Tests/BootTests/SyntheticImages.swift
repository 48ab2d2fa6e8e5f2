import CCompression
import Testing

@testable import Boot

/// Bytes with little-endian integers put at offsets; grows as needed.
struct ImageBuilder {
    var bytes: [UInt8] = []

    mutating func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        put((0..<MemoryLayout<Value>.size).map { UInt8(truncatingIfNeeded: value >> Value(8 * $0)) }, at: offset)
    }

    mutating func put(_ values: [UInt8], at offset: Int) {
        if bytes.count < offset + values.count {
            bytes += [UInt8](repeating: 0, count: offset + values.count - bytes.count)
        }
        bytes.replaceSubrange(offset..<offset + values.count, with: values)
    }
}

/// An ELF executable as a test wants it.
struct TestELF {
    struct Segment {
        var type: UInt32 = 1
        var virtual: UInt64? = nil
        var physical: UInt64
        var contents: [UInt8]
        var memoryCount: UInt64? = nil
    }

    var is64Bit = true
    var machine: UInt16 = 62
    var entry: UInt64 = 0x100_0000
    var segments = [Segment(physical: 0x100_0000, contents: [0x90, 0xF4])]
    /// owner, type, descriptor
    var notes: [(String, UInt32, [UInt8])] = []
    /// Put at 0x800, before the contents: a Multiboot header.
    var extra: [UInt8] = []

    static let linuxNote: (String, UInt32, [UInt8]) = ("Linux", 0x100, [1, 0, 0, 0])
    static func pvhNote(_ address: UInt32) -> (String, UInt32, [UInt8]) {
        ("Xen", 18, (0..<4).map { UInt8(truncatingIfNeeded: address >> (8 * $0)) })
    }

    var bytes: [UInt8] {
        var image = ImageBuilder()
        var all = segments
        if !notes.isEmpty {
            var contents = ImageBuilder()
            for (owner, type, descriptor) in notes {
                let start = contents.bytes.count
                let name = Array(owner.utf8) + [0]
                contents.put(UInt32(name.count), at: start)
                contents.put(UInt32(descriptor.count), at: start + 4)
                contents.put(type, at: start + 8)
                contents.put(name, at: start + 12)
                contents.put(descriptor, at: start + 12 + (name.count + 3) & ~3)
                while contents.bytes.count % 4 != 0 { contents.bytes.append(0) }
            }
            all.append(Segment(type: 4, physical: 0, contents: contents.bytes))
        }
        image.put([0x7F, 0x45, 0x4C, 0x46, is64Bit ? 2 : 1, 1, 1], at: 0)
        image.put(UInt16(2), at: 16)
        image.put(machine, at: 18)
        image.put(UInt32(1), at: 20)
        let headerSize = is64Bit ? 64 : 52
        let entrySize = is64Bit ? 56 : 32
        if is64Bit {
            image.put(entry, at: 24)
            image.put(UInt64(headerSize), at: 32)
        } else {
            image.put(UInt32(entry), at: 24)
            image.put(UInt32(headerSize), at: 28)
        }
        image.put(UInt16(entrySize), at: is64Bit ? 54 : 42)
        image.put(UInt16(all.count), at: is64Bit ? 56 : 44)
        var offset = 0x1000
        for (index, segment) in all.enumerated() {
            let header = headerSize + index * entrySize
            let memory = segment.memoryCount ?? UInt64(segment.contents.count)
            let virtual = segment.virtual ?? segment.physical
            image.put(segment.type, at: header)
            if is64Bit {
                image.put(UInt64(offset), at: header + 8)
                image.put(virtual, at: header + 16)
                image.put(segment.physical, at: header + 24)
                image.put(UInt64(segment.contents.count), at: header + 32)
                image.put(memory, at: header + 40)
            } else {
                image.put(UInt32(offset), at: header + 4)
                image.put(UInt32(truncatingIfNeeded: virtual), at: header + 8)
                image.put(UInt32(truncatingIfNeeded: segment.physical), at: header + 12)
                image.put(UInt32(segment.contents.count), at: header + 16)
                image.put(UInt32(truncatingIfNeeded: memory), at: header + 20)
            }
            image.put(segment.contents, at: offset)
            offset += (segment.contents.count + 15) & ~15
        }
        if !extra.isEmpty { image.put(extra, at: 0x800) }
        return image.bytes
    }
}

/// A bzImage as a test wants it.
struct TestBzImage {
    var version: UInt16 = 0x20F
    var loadFlags: UInt8 = 1
    var start32: UInt32 = 0x10_0000
    var extendedFlags: UInt16 = 3
    var setupSectors: UInt8 = 3
    var preferredAddress: UInt64 = 0x100_0000
    var alignment: UInt32 = 0x20_0000
    var initSize: UInt32 = 0x10_0000
    var initrdLimit: UInt32 = 0x7FFF_FFFF
    var commandLineLimit: UInt32 = 2047
    /// The packed kernel with its trailing size.
    var payload: [UInt8] = []
    static let payloadOffset = 0x400

    var bytes: [UInt8] {
        var image = ImageBuilder()
        let setup = (Int(setupSectors) + 1) * 512
        let system = ((Self.payloadOffset + payload.count) + 15) & ~15
        image.put(setupSectors, at: 0x1F1)
        image.put(UInt32(system / 16), at: 0x1F4)
        image.put(UInt16(0xAA55), at: 0x1FE)
        image.put([0xEB, 0x6A], at: 0x200)
        image.put(Array("HdrS".utf8), at: 0x202)
        image.put(version, at: 0x206)
        image.put(loadFlags, at: 0x211)
        image.put(start32, at: 0x214)
        image.put(initrdLimit, at: 0x22C)
        image.put(alignment, at: 0x230)
        image.put(UInt8(1), at: 0x234)
        image.put(extendedFlags, at: 0x236)
        image.put(commandLineLimit, at: 0x238)
        image.put(UInt32(payload.isEmpty ? 0 : Self.payloadOffset), at: 0x248)
        image.put(UInt32(payload.count), at: 0x24C)
        image.put(preferredAddress, at: 0x258)
        image.put(initSize, at: 0x260)
        image.put([UInt8](repeating: 0xCC, count: Self.payloadOffset), at: setup)
        image.put(payload, at: setup + Self.payloadOffset)
        image.put(
            [UInt8](repeating: 0, count: system - Self.payloadOffset - payload.count),
            at: setup + Self.payloadOffset + payload.count)
        return image.bytes
    }
}

/// Packs bytes with the libraries that unpack them, as kernel builds do.
enum Packed {
    static func withSize(_ packed: [UInt8], _ size: Int) -> [UInt8] {
        packed + (0..<4).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) }
    }

    static func gzip(_ bytes: [UInt8]) -> [UInt8] {
        var stream = z_stream()
        deflateInit2_(
            &stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY, zlibVersion(), Int32(MemoryLayout<z_stream>.size))
        defer { deflateEnd(&stream) }
        var input = bytes
        var output = [UInt8](repeating: 0, count: bytes.count + bytes.count / 100 + 1024)
        let count = input.withUnsafeMutableBufferPointer { input in
            output.withUnsafeMutableBufferPointer { output in
                stream.next_in = input.baseAddress
                stream.avail_in = UInt32(input.count)
                stream.next_out = output.baseAddress
                stream.avail_out = UInt32(output.count)
                _ = deflate(&stream, Z_FINISH)
                return output.count - Int(stream.avail_out)
            }
        }
        return Array(output[..<count])
    }

    static func xz(_ bytes: [UInt8]) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: lzma_stream_buffer_bound(bytes.count))
        var count = 0
        // With the branch filter for x86, as the kernel's wrapper around xz.
        var options = lzma_options_lzma()
        lzma_lzma_preset(&options, 1)
        withUnsafeMutablePointer(to: &options) { options in
            var filters = [
                lzma_filter(id: 4, options: nil), lzma_filter(id: 0x21, options: options),
                lzma_filter(id: UInt64.max, options: nil),
            ]
            let status = lzma_stream_buffer_encode(
                &filters, LZMA_CHECK_CRC32, nil, bytes, bytes.count, &output, &count, output.count)
            #expect(status == LZMA_OK)
        }
        return Array(output[..<count])
    }

    static func lz4Legacy(_ bytes: [UInt8]) -> [UInt8] {
        var image = ImageBuilder()
        image.put(UInt32(0x184C_2102), at: 0)
        for start in stride(from: 0, to: bytes.count, by: 8 << 20) {
            let block = bytes[start..<min(start + 8 << 20, bytes.count)].map { CChar(bitPattern: $0) }
            var output = [CChar](repeating: 0, count: Int(LZ4_compressBound(Int32(block.count))))
            let count = LZ4_compress_default(block, &output, Int32(block.count), Int32(output.count))
            image.put(UInt32(count), at: image.bytes.count)
            image.put(output[..<Int(count)].map { UInt8(bitPattern: $0) }, at: image.bytes.count)
        }
        return image.bytes
    }

    static func lz4Frame(_ bytes: [UInt8]) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: LZ4F_compressFrameBound(bytes.count, nil))
        let count = LZ4F_compressFrame(&output, output.count, bytes, bytes.count, nil)
        return Array(output[..<count])
    }

    static func zstd(_ bytes: [UInt8]) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: ZSTD_compressBound(bytes.count))
        let count = ZSTD_compress(&output, output.count, bytes, bytes.count, 3)
        return Array(output[..<count])
    }

    static let all: [(name: String, pack: @Sendable ([UInt8]) -> [UInt8], sizeIsInside: Bool)] = [
        ("gzip", gzip, true), ("xz", xz, false), ("lz4", lz4Legacy, false), ("lz4 frame", lz4Frame, false),
        ("zstd", zstd, false),
    ]
}

/// A generator whose every run can be repeated: SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

extension ImageBytes {
    init(_ bytes: [UInt8]) { self.init(bytes, name: "image") }
}
