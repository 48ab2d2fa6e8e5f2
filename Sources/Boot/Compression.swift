import CCompression

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The ways kernels are packed, seen from the first bytes.
enum Compression: String, Hashable, Sendable {
    case gzip, xz, lz4, zstd
    // Recognised, left to the kernel's own unpacker.
    case bzip2, lzma, lzo

    /// Whether this module unpacks it.
    var isSupported: Bool {
        switch self {
        case .gzip, .xz, .lz4, .zstd: true
        case .bzip2, .lzma, .lzo: false
        }
    }

    /// What `bytes` begin like, if like anything.
    init?(_ bytes: ImageBytes) {
        guard let magic = bytes.integer(UInt32.self, at: 0) else { return nil }
        switch magic {
        case Self.lz4LegacyMagic, 0x184D_2204: self = .lz4
        case 0xFD2F_B528: self = .zstd
        case _ where magic & 0xFF_FFFF == 0x08_8B1F: self = .gzip
        case 0x587A_37FD: self = .xz
        case _ where bytes.holds("BZh", at: 0): self = .bzip2
        case _ where magic == 0x4F5A_4C89: self = .lzo
        // Properties 0x5D and a dictionary that is a power of two, as xz --format=lzma writes them.
        case _ where magic & 0xFFFF == 0x005D && bytes.integer(UInt8.self, at: 4) == 0: self = .lzma
        default: return nil
        }
    }

    static let lz4LegacyMagic: UInt32 = 0x184C_2102
    /// The most working memory that unpacking may take beside its output. Kernels are packed with up to 128 MiB.
    static let memoryLimit: UInt64 = 192 << 20

    /// How an attempt ended.
    private enum Failure: Error { case corrupt, tooLarge, needsMemory }

    /// Unpacks `bytes`, once and into one place; pages that stay unused are never committed.
    ///
    /// Bytes behind the packed data are ignored, as the size that kernel builds append.
    /// - Parameter limit: the most bytes to unpack to.
    /// - Throws: `corruptCompression`, `unpacksTooLarge`, or `unsupported` for a format only kernels unpack.
    func unpack(_ bytes: ImageBytes, limit: UInt64) throws(BootError) -> ImageBytes {
        // One byte more than allowed, so that too much is told from just enough.
        let (reserve, overflow) = limit.addingReportingOverflow(1)
        guard !overflow, let target = ImageBytes.Mapping.anonymous(count: reserve) else {
            throw .unpacksTooLarge(image: bytes.name, format: rawValue, limit: limit)
        }
        let output = unsafe UnsafeMutableRawBufferPointer(start: target.start, count: target.count)
        let input = unsafe bytes.unsafeBytes
        let count: Int
        do throws(Failure) {
            count =
                switch self {
                case .gzip: unsafe try Self.inflate(input, into: output)
                case .xz: unsafe try Self.unxz(input, into: output)
                case .lz4: unsafe try Self.unlz4(input, into: output)
                case .zstd: unsafe try Self.unzstd(input, into: output)
                case .bzip2, .lzma, .lzo: throw .corrupt
                }
        } catch {
            if !isSupported {
                throw .unsupported(image: bytes.name, problem: "it is packed with \(rawValue); unpack it first")
            }
            switch error {
            case .corrupt: throw .corruptCompression(image: bytes.name, format: rawValue)
            case .tooLarge: throw .unpacksTooLarge(image: bytes.name, format: rawValue, limit: limit)
            case .needsMemory:
                throw .unsupported(
                    image: bytes.name,
                    problem:
                        "unpacking its \(rawValue) data needs more than \(Self.memoryLimit >> 20) MiB; unpack it first")
            }
        }
        // `bytes` must outlive the pointers into it.
        return withExtendedLifetime(bytes) {
            ImageBytes(name: bytes.name, mapping: target, offset: 0, count: UInt64(count))
        }
    }

    /// Source: [RFC1952].
    private static func inflate(
        _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(Failure) -> Int {
        var stream = unsafe z_stream()
        // 15 bits of window, and 16 for the gzip wrapping.
        guard unsafe inflateInit2_(&stream, 31, zlibVersion(), Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            throw .corrupt
        }
        defer { _ = unsafe inflateEnd(&stream) }
        var consumed = 0
        var produced = 0
        while true {
            // The library counts in 32 bits.
            let give = UInt32(clamping: input.count - consumed)
            let take = UInt32(clamping: output.count - produced)
            unsafe stream.next_in = UnsafeMutablePointer(
                mutating: input.baseAddress?.advanced(by: consumed).assumingMemoryBound(to: UInt8.self))
            unsafe stream.avail_in = give
            unsafe stream.next_out = output.baseAddress?.advanced(by: produced).assumingMemoryBound(to: UInt8.self)
            unsafe stream.avail_out = take
            let status = unsafe CCompression.inflate(&stream, Z_NO_FLUSH)
            let used = unsafe Int(give - stream.avail_in)
            let made = unsafe Int(take - stream.avail_out)
            consumed += used
            produced += made
            if produced == output.count { throw .tooLarge }
            if status == Z_STREAM_END { return produced }
            guard status == Z_OK, used > 0 || made > 0 else { throw .corrupt }
        }
    }

    private static func unxz(
        _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(Failure) -> Int {
        var memory = memoryLimit
        var consumed = 0
        var produced = 0
        let status = unsafe lzma_stream_buffer_decode(
            &memory, 0, nil, input.baseAddress?.assumingMemoryBound(to: UInt8.self), &consumed, input.count,
            output.baseAddress?.assumingMemoryBound(to: UInt8.self), &produced, output.count)
        switch status {
        case LZMA_OK: break
        case LZMA_BUF_ERROR: throw .tooLarge
        case LZMA_MEMLIMIT_ERROR, LZMA_MEM_ERROR: throw .needsMemory
        default: throw .corrupt
        }
        guard produced < output.count else { throw .tooLarge }
        return produced
    }

    /// Frames one after the other; what follows the last one is ignored.
    private static func unzstd(
        _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(Failure) -> Int {
        var consumed = 0
        var produced = 0
        while let start = unsafe input.baseAddress?.advanced(by: consumed), input.count - consumed >= 4 {
            let magic = unsafe start.loadUnaligned(as: UInt32.self)
            guard magic == 0xFD2F_B528 || magic & 0xFFFF_FFF0 == 0x184D_2A50 else { break }
            let frame = unsafe ZSTD_findFrameCompressedSize(start, input.count - consumed)
            guard ZSTD_isError(frame) == 0, frame > 0 else { throw .corrupt }
            let made = unsafe ZSTD_decompress(
                output.baseAddress?.advanced(by: produced), output.count - produced, start, frame)
            guard ZSTD_isError(made) == 0 else {
                throw ZSTD_getErrorCode(made) == ZSTD_error_dstSize_tooSmall ? .tooLarge : .corrupt
            }
            consumed += frame
            produced += made
            guard produced < output.count else { throw .tooLarge }
        }
        return produced
    }

    private static func unlz4(
        _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(Failure) -> Int {
        if input.count >= 4, unsafe input.loadUnaligned(as: UInt32.self) == lz4LegacyMagic {
            return unsafe try unlz4Legacy(input, into: output)
        }
        var context: OpaquePointer?
        guard unsafe LZ4F_isError(LZ4F_createDecompressionContext(&context, 100)) == 0 else { throw .corrupt }
        defer { _ = unsafe LZ4F_freeDecompressionContext(context) }
        var consumed = 0
        var produced = 0
        while true {
            var give = input.count - consumed
            var take = output.count - produced
            let status = unsafe LZ4F_decompress(
                context, output.baseAddress?.advanced(by: produced), &take,
                input.baseAddress?.advanced(by: consumed), &give, nil)
            guard LZ4F_isError(status) == 0 else { throw .corrupt }
            consumed += give
            produced += take
            if produced == output.count { throw .tooLarge }
            if status == 0 { return produced }
            guard give > 0 || take > 0 else { throw .corrupt }
        }
    }

    /// The format that kernel builds use: a magic number, then blocks, each after its packed size, each of 8 MiB but
    /// the last. Source: [LZ4-FRAME] legacy frame.
    private static func unlz4Legacy(
        _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(Failure) -> Int {
        let blockLimit = 8 << 20
        var consumed = 4
        var produced = 0
        while input.count - consumed > 4, let start = input.baseAddress, let target = output.baseAddress {
            let size = unsafe start.loadUnaligned(fromByteOffset: consumed, as: UInt32.self)
            // Archives may be joined.
            if size == lz4LegacyMagic {
                consumed += 4
                continue
            }
            consumed += 4
            guard let packed = Int32(exactly: size), packed > 0, Int(packed) <= input.count - consumed else {
                throw .corrupt
            }
            let room = min(blockLimit, output.count - produced)
            let made = unsafe LZ4_decompress_safe(
                (start + consumed).assumingMemoryBound(to: CChar.self),
                (target + produced).assumingMemoryBound(to: CChar.self), packed, Int32(truncatingIfNeeded: room))
            // The library does not tell damage from a full target; a target cut below a block's size was too small.
            guard made >= 0 else { throw room < blockLimit ? .tooLarge : .corrupt }
            consumed += Int(packed)
            produced += Int(made)
            guard produced < output.count else { throw .tooLarge }
        }
        return produced
    }
}

extension ImageBytes {
    /// The bytes, unpacked where they are packed: a kernel module that its package compresses, say.
    ///
    /// - Parameter limit: the most bytes to unpack to.
    /// - Throws: `BootError` for packed data that is corrupt, too large, or of a kind that is not unpacked here.
    public func unpackedContents(limit: UInt64) throws(BootError) -> [UInt8] {
        guard let compression = Compression(self) else { return array }
        return try compression.unpack(self, limit: limit).array
    }
}
