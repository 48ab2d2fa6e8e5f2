import VMCore

/// What images that a PC's BIOS would have started find of it in low memory: vectors that lead to an IRET, so that a call
/// into the BIOS returns with nothing done, and the words of its data area that tell where conventional memory ends:
/// Xen puts code below what they say, whatever Multiboot says.
/// Source: [RBIL] memory.lst, segment 0040h.
enum BIOSData {
    /// One past the data area.
    static let end: UInt64 = 0x500
    /// In what the data area leaves to programs (0x4F0 to 0x4FF).
    private static let interruptReturn: UInt64 = 0x4F0

    static func place(in memory: GuestMemory) throws(BootError) {
        var bytes = LittleEndianBytes()
        for _ in 0..<256 { bytes.append(UInt32(interruptReturn)) }
        let vectors = bytes.bytes
        let base = BootLayout.extendedBIOSData.rawValue
        try placing { () throws(GuestMemoryError) in
            try memory.write(vectors, at: GuestAddress(0))
            try memory.store(UInt16(0x3F8), at: GuestAddress(0x400))  // the first serial port
            try memory.store(UInt16(base / 16), at: GuestAddress(0x40E))  // the extended data area's segment
            try memory.store(UInt16(base / 1024), at: GuestAddress(0x413))  // conventional memory, KiB
            try memory.store(UInt8(0xCF), at: GuestAddress(interruptReturn))
        }
    }
}
