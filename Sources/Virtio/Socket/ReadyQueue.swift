/// Who has something to send, in the order in which they came to: each at most once. Of a fixed size.
struct ReadyQueue {
    private var places: [UInt16]
    private var isQueued: [Bool]
    private var first = 0
    private var count = 0

    /// - Parameter capacity: 1 to 65536; members are numbers below it.
    init(capacity: Int) {
        places = Array(repeating: 0, count: capacity)
        isQueued = Array(repeating: false, count: capacity)
    }

    var isEmpty: Bool { count == 0 }

    mutating func append(_ index: Int) {
        guard !isQueued[index] else { return }
        isQueued[index] = true
        places[(first &+ count) % places.count] = UInt16(truncatingIfNeeded: index)
        count &+= 1
    }

    mutating func popFirst() -> Int? {
        guard count > 0 else { return nil }
        let index = Int(places[first])
        first = (first &+ 1) % places.count
        count &-= 1
        isQueued[index] = false
        return index
    }
}
