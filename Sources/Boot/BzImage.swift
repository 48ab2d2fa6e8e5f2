import VMCore

/// A Linux bzImage: a boot sector, real-mode code that nobody runs here, a small unpacker, and the kernel proper in it,
/// packed.
/// Source: [LINUX-BOOT].
struct BzImage: Sendable {
    let image: ImageBytes
    let header: SetupHeader
    /// The unpacker with the packed kernel in it: what a boot loader would place and start.
    let system: ImageBytes

    static func isBzImage(_ image: ImageBytes) -> Bool {
        image.integer(UInt32.self, at: 0x202) == SetupHeader.magic && image.integer(UInt16.self, at: 0x1FE) == 0xAA55
    }

    /// - Throws: what is wrong with the header, or that the file is shorter than it says.
    init(_ image: ImageBytes) throws(BootError) {
        self.image = image
        header = try SetupHeader(image: image)
        let version = header.version
        guard version >= 0x206, header.isLoadedHigh else {
            throw .unsupported(
                image: image.name,
                problem:
                    "its boot protocol is \(version >> 8).\(version & 0xFF < 10 ? "0" : "")\(version & 0xFF), and 2.06 (Linux 2.6.22) is the oldest "
                    + "that is supported; give a newer kernel")
        }
        let alignment = header.alignment
        guard !header.isRelocatable || alignment.nonzeroBitCount == 1 else {
            throw .malformed(image: image.name, problem: "it is to be aligned to \(alignment) bytes, which is no power of two")
        }
        guard header.systemSize > 0 else {
            throw .malformed(image: image.name, problem: "its setup header gives the kernel no bytes")
        }
        guard header.has64BitEntry || header.start32 != 0 else {
            throw .unsupported(
                image: image.name,
                problem: "it names no 32-bit entry: it starts in real mode and calls a BIOS, and there is none here; give a kernel")
        }
        // The size counts paragraphs of 16 bytes, and not every build fills the last one up: Linux before 2.6.31, Memtest86+.
        // The packed kernel, where its place is known, is there to its last byte.
        let present = image.count - min(image.count, header.setupSize)
        let isShortOfParagraph =
            present < header.systemSize && header.systemSize - present < 16 && header.payload.offset + header.payload.count <= present
        system = try image.part(at: header.setupSize, count: isShortOfParagraph ? present : header.systemSize)
    }

    /// Unpacks the kernel proper.
    ///
    /// - Parameter limit: the most bytes to unpack to.
    /// - Returns: nil where there is nothing that can be unpacked and started here: no payload, a packing that only the
    ///   kernel itself unpacks, or one that holds no 64-bit kernel. The image's own unpacker then does it in the guest.
    /// - Throws: `corruptCompression`, `unpacksTooLarge`, `truncated`.
    func unpack(limit: UInt64) throws(BootError) -> ELF? {
        let (offset, count) = header.payload
        // Builds append the unpacked size, four bytes.
        guard header.has64BitEntry, offset > 0, count > 8 else { return nil }
        let payload = try system.part(at: offset, count: count)
        guard let format = Compression(payload), format.isSupported else { return nil }
        let size = UInt64(try payload.field(UInt32.self, at: count - 4))
        guard size <= limit else {
            throw .unpacksTooLarge(image: image.name, format: format.rawValue, limit: limit)
        }
        // gzip's own trailer is that size; the others' streams end before it.
        let packed = try payload.part(at: 0, count: format == .gzip ? count : count - 4)
        let unpacked: ImageBytes
        do {
            unpacked = try format.unpack(packed, limit: size)
        } catch .unpacksTooLarge {
            // More than the size it states itself.
            throw .corruptCompression(image: image.name, format: format.rawValue)
        }
        guard unpacked.count == size else { throw .corruptCompression(image: image.name, format: format.rawValue) }
        guard ELF.isELF(unpacked) else { return nil }
        let elf = try ELF(unpacked)
        return elf.is64Bit ? elf : nil
    }

    /// Places the packed kernel with its unpacker where it asks to be.
    ///
    /// - Returns: how to start it, given the boot parameters' address.
    func loadPacked(into plan: inout MemoryPlan) throws(BootError) -> EntryPoint.Mode {
        // Where it runs best is where it need not move itself to; an old one has no choice.
        let address = header.preferredAddress
        guard address > 0, address <= UInt64(UInt32.max) - 0x200 else {
            throw .malformed(image: image.name, problem: "its preferred address is \(GuestAddress(address))")
        }
        // Before 2.10 there was no address to prefer; a kernel that is not where its alignment has it moves itself.
        if header.isRelocatable, header.version >= 0x20A, address % UInt64(header.alignment) != 0 {
            throw .malformed(
                image: image.name, problem: "its preferred address \(GuestAddress(address)) is not aligned as it asks")
        }
        try plan.claim(image.name, at: GuestAddress(address), count: max(header.initSize, system.count))
        try system.copy(into: plan.memory, at: GuestAddress(address))
        let parameters = BootLayout.parameters.rawValue
        if header.has64BitEntry { return .long64(rip: address + 0x200, rsi: parameters) }
        return .protected32(
            eip: UInt32(truncatingIfNeeded: address), eax: 0, ebx: 0, esi: UInt32(truncatingIfNeeded: parameters))
    }
}
