import VMCore

/// Who lies where while an image is loaded: each part claims its range, and a range is claimed once.
struct MemoryPlan {
    struct Claim {
        var what: String
        var first: UInt64
        /// Inclusive.
        var last: UInt64
    }

    let memory: GuestMemory
    private(set) var claims: [Claim]

    /// A plan in which only what a PC keeps for itself is taken: the EBDA and everything from 640 KiB to 1 MiB.
    init(memory: GuestMemory) {
        self.memory = memory
        claims = [
            Claim(
                what: "the BIOS area (0x9fc00 to 1 MiB)", first: BootLayout.extendedBIOSData.rawValue,
                last: BootLayout.highMemory.rawValue - 1)
        ]
    }

    /// Takes the first 64 KiB, where the loader's own tables lie (see `BootLayout`).
    mutating func claimTables() throws(BootError) {
        try claim("the loader's own tables", at: GuestAddress(0), count: BootLayout.information.rawValue)
    }

    /// Takes `count` bytes at `address`; they must be RAM, in one region, and free.
    mutating func claim(_ what: String, at address: GuestAddress, count: UInt64) throws(BootError) {
        guard count > 0 else { return }
        let (last, overflow) = address.rawValue.addingReportingOverflow(count - 1)
        let isRAM = memory.regions.contains { $0.base <= address && last <= $0.last.rawValue }
        guard !overflow, isRAM else {
            throw .outsideMemory(what: what, address: address, count: count, memory: memory.size)
        }
        if let other = claims.first(where: { $0.first <= last && address.rawValue <= $0.last }) {
            throw .overlap(what: what, other: other.what, address: address)
        }
        claims.append(Claim(what: what, first: address.rawValue, last: last))
    }

    /// The highest free run of `count` bytes whose last byte is at most `limit`; nil where there is none.
    ///
    /// - Parameters:
    ///   - alignment: a power of two; both ends are multiples of it.
    ///   - limit: inclusive.
    /// - Complexity: O(claims²): a claim is passed at most once.
    func highestFree(count: UInt64, alignment: UInt64, upTo limit: UInt64) -> GuestAddress? {
        let (padded, overflow) = count.addingReportingOverflow(alignment - 1)
        guard !overflow, count > 0 else { return nil }
        let size = padded & ~(alignment - 1)
        for region in memory.regions.reversed() {
            // One past the last usable byte; regions end far below 2^64.
            var end = min(region.last.rawValue, min(limit, .max - 1)) + 1
            while true {
                end &= ~(alignment - 1)
                guard end >= size, end - size >= region.base.rawValue else { break }
                let start = end - size
                guard
                    let obstacle = claims.filter({ $0.first < end && start <= $0.last }).min(by: { $0.first < $1.first }
                    )
                else { return GuestAddress(start) }
                end = obstacle.first
            }
        }
        return nil
    }
}
