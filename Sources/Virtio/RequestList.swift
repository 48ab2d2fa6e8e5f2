/// A request that a list can hold: it is in one at most.
protocol ListedRequest: AnyObject {
    /// For whichever list it is in.
    var next: Self? { get set }
}

/// Requests in a row, linked through themselves.
struct RequestList<Request: ListedRequest> {
    private var first: Request?
    private var last: Request?

    var isEmpty: Bool { first == nil }

    @inline(__always)
    mutating func append(_ request: Request) {
        request.next = nil
        if let last { last.next = request } else { first = request }
        last = request
    }

    @inline(__always)
    mutating func popFirst() -> Request? {
        guard let request = first else { return nil }
        first = request.next
        if first == nil { last = nil }
        request.next = nil
        return request
    }

    /// As `popFirst`, from a list used as a stack: the one that was put there last, whose memory is in the caches.
    @inline(__always)
    mutating func push(_ request: Request) {
        request.next = first
        if first == nil { last = request }
        first = request
    }
}
