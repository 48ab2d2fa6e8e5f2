public import VMCore

/// Guest virtual to guest physical, as a debugger needs it: no permission is checked and nothing is marked accessed.
///
/// Source: [SDM3 §4] paging: 32-bit, PAE, 4-level and 5-level.
public enum PageWalk {
    private static let present: UInt64 = 1
    private static let large: UInt64 = 1 << 7
    private static let frame: UInt64 = 0x000F_FFFF_FFFF_F000

    /// - Returns: nil where the address is not mapped, or a table lies outside RAM.
    public static func translate(
        _ address: UInt64, _ system: SystemRegisters, _ memory: GuestMemory
    ) -> GuestAddress? {
        guard system.cr0 & 1 << 31 != 0 else { return GuestAddress(address & 0xFFFF_FFFF) }
        if system.efer & 1 << 10 != 0 {
            return walk(address, system.cr3 & frame, levels: system.cr4 & 1 << 12 != 0 ? 5 : 4, memory)
        }
        let address = address & 0xFFFF_FFFF
        if system.cr4 & 1 << 5 != 0 {
            // PAE: four pointers of 64 bits, anywhere at 32-byte alignment.
            guard let pointer = entry(system.cr3 & 0xFFFF_FFE0, address >> 30, memory) else { return nil }
            return walk(address, pointer & frame, levels: 2, memory)
        }
        return walk32(address, system, memory)
    }

    private static func entry(_ table: UInt64, _ index: UInt64, _ memory: GuestMemory) -> UInt64? {
        guard let value = try? memory.load(UInt64.self, at: GuestAddress(table &+ index &* 8)), value & present != 0
        else { return nil }
        return value
    }

    private static func walk(_ address: UInt64, _ root: UInt64, levels: Int, _ memory: GuestMemory) -> GuestAddress? {
        var table = root
        for level in stride(from: levels, to: 0, by: -1) {
            let shift = UInt64(12 + 9 * (level - 1))
            guard let value = entry(table, address >> shift & 0x1FF, memory) else { return nil }
            if level == 1 || (level <= 3 && value & large != 0) {
                let offset = (UInt64(1) << shift) &- 1
                return GuestAddress((value & frame & ~offset) | (address & offset))
            }
            table = value & frame
        }
        return nil
    }

    private static func walk32(_ address: UInt64, _ system: SystemRegisters, _ memory: GuestMemory) -> GuestAddress? {
        func entry(_ table: UInt64, _ index: UInt64) -> UInt64? {
            guard let value = try? memory.load(UInt32.self, at: GuestAddress(table &+ index &* 4)), value & 1 != 0
            else { return nil }
            return UInt64(value)
        }
        guard let directory = entry(system.cr3 & 0xFFFF_F000, address >> 22) else { return nil }
        if directory & large != 0, system.cr4 & 1 << 4 != 0 {
            // PSE-36: bits 20-13 are address bits 39-32.
            let high = (directory >> 13 & 0xFF) << 32
            return GuestAddress(high | directory & 0xFFC0_0000 | address & 0x3F_FFFF)
        }
        guard let page = entry(directory & 0xFFFF_F000, address >> 12 & 0x3FF) else { return nil }
        return GuestAddress(page & 0xFFFF_F000 | address & 0xFFF)
    }
}
