public import VMCore

/// A line that remembers its level and counts its edges.
public final class RecordingLine: InterruptLine, @unchecked Sendable {
    public private(set) var isHigh = false
    public private(set) var risingEdges = 0

    public init() {}

    public func setLevel(_ isHigh: Bool) {
        if isHigh && !self.isHigh { risingEdges += 1 }
        self.isHigh = isHigh
    }
}
