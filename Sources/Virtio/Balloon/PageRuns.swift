/// Page numbers as a driver lists them, made into as few runs of pages as they are. Holds one portion of a list at a time.
@safe struct PageRuns: ~Copyable {
    /// Pages of one portion.
    static let capacity = 1024
    /// Shift from a page's number to its address, whatever size the guest's own pages are. Source: [VIRTIO1.2 §5.5.6].
    static let shift: UInt64 = 12

    private let numbers: UnsafeMutableBufferPointer<UInt32>
    private var count = 0

    init() { unsafe numbers = .allocate(capacity: Self.capacity) }
    deinit { unsafe numbers.deallocate() }

    /// Takes the next portion of the numbers in a request's readable bytes, from `offset` on.
    /// - Returns: bytes taken: 0 at the end of them, where less than a number may be left.
    mutating func fill(_ chain: DescriptorChain, at offset: UInt64) -> UInt64 {
        let bytes = unsafe chain.read(at: offset, into: UnsafeMutableRawBufferPointer(numbers))
        count = bytes / 4
        for index in 0..<count { unsafe numbers[index] = UInt32(littleEndian: numbers[index]) }
        sort()
        return UInt64(count) &* 4
    }

    /// Calls `body` for each run, with the address of its first page and its length in bytes. Pages listed more than once are
    /// there once.
    func forEach(_ body: (UInt64, UInt64) -> Void) {
        var index = 0
        while index < count {
            let first = unsafe UInt64(numbers[index])
            var next = first &+ 1
            index &+= 1
            while index < count, unsafe UInt64(numbers[index]) <= next {
                next = unsafe UInt64(numbers[index]) &+ 1
                index &+= 1
            }
            body(first << Self.shift, (next &- first) << Self.shift)
        }
    }

    /// Shell's sort with Ciura's gaps: in place and without an allocation, for a portion that mostly is in order already.
    private mutating func sort() {
        var isSorted = true
        for index in 1..<max(1, count) where unsafe numbers[index] < numbers[index &- 1] {
            isSorted = false
            break
        }
        guard !isSorted else { return }
        let gaps: InlineArray<8, Int> = [701, 301, 132, 57, 23, 10, 4, 1]
        for step in gaps.indices {
            let gap = gaps[step]
            var index = gap
            while index < count {
                let number = unsafe numbers[index]
                var place = index
                while place >= gap, unsafe numbers[place &- gap] > number {
                    unsafe numbers[place] = numbers[place &- gap]
                    place &-= gap
                }
                unsafe numbers[place] = number
                index &+= 1
            }
        }
    }
}
