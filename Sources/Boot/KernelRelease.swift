#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Which Linux an image is: what `uname -r` says in its guest, and what the directory of its modules is called.
extension BootImage {
    /// The release, such as `6.1.0-40-cloud-amd64`. nil for what is no Linux, or does not say.
    ///
    /// It is one plain name: a letter, digit or any of `.+~_-` each, a digit first.
    ///
    /// A bzImage's header leads to it; in a vmlinux, packed or prepared, the text is looked for with which a kernel greets.
    /// Source: [LINUX-BOOT details of header fields, "kernel_version"].
    ///
    /// - Parameter limit: the most bytes to unpack an image to that is packed as a whole.
    public func release(limit: UInt64 = 1 << 30) -> String? {
        switch kind {
        case .bzImage: return Self.releaseInHeader(bytes)
        case .elf, .prepared: return Self.releaseInGreeting(bytes)
        case .compressed:
            guard let inside = try? unpacked(limit: limit) else { return nil }
            return inside.release(limit: limit)
        case .multiboot1, .multiboot2, .bootSector, .flat: return nil
        }
    }

    /// More than the kernel's own 64 (`__NEW_UTS_LEN`) is none.
    private static let longestRelease = 64

    private static func releaseInHeader(_ image: ImageBytes) -> String? {
        // Counted from 0x200; zero where there is none.
        guard let pointer = image.integer(UInt16.self, at: 0x20E), pointer > 0 else { return nil }
        return release(in: image, at: UInt64(pointer) + 0x200)
    }

    private static func releaseInGreeting(_ image: ImageBytes) -> String? {
        let greeting = Array("Linux version ".utf8)
        var offset: UInt64 = 0
        // Others of a kernel's texts may begin in the same way, and no release follows.
        while let found = image.offset(of: greeting, from: offset) {
            let start = found + UInt64(greeting.count)
            if let release = release(in: image, at: start) { return release }
            offset = start
        }
        return nil
    }

    /// The word at an offset, which a blank or a zero ends.
    private static func release(in image: ImageBytes, at offset: UInt64) -> String? {
        guard offset < image.count else { return nil }
        let most = min(UInt64(longestRelease) + 1, image.count - offset)
        guard let part = image.slice(at: offset, count: most) else { return nil }
        let bytes = part.array
        guard let end = bytes.firstIndex(where: { $0 == 0 || $0 == UInt8(ascii: " ") }), let first = bytes[..<end].first,
            isDigit(first), bytes[..<end].allSatisfy(isPlain)
        else { return nil }
        return String(decoding: bytes[..<end], as: UTF8.self)
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

    /// What neither leads out of a directory nor ends a line.
    private static func isPlain(_ byte: UInt8) -> Bool {
        isDigit(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) || ".+~_-".utf8.contains(byte)
    }
}

extension ImageBytes {
    /// Where `text` begins, at `start` or behind it; nil where it is not.
    fileprivate func offset(of text: [UInt8], from start: UInt64) -> UInt64? {
        guard let first = text.first, start < count else { return nil }
        let bytes = unsafe unsafeBytes
        var at = Int(start)
        while at <= bytes.count - text.count {
            guard let base = bytes.baseAddress,
                let hit = unsafe memchr(base + at, Int32(first), bytes.count - text.count - at + 1)
            else { return nil }
            at = unsafe UnsafeRawPointer(hit) - base
            if unsafe UnsafeRawBufferPointer(rebasing: bytes[at..<at + text.count]).elementsEqual(text) { return UInt64(at) }
            at += 1
        }
        return nil
    }
}
