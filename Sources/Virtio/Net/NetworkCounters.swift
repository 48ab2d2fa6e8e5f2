/// What a network device has done, each way.
struct NetworkCounters {
    var sentFrames: UInt64 = 0
    var sentBytes: UInt64 = 0
    /// Shorter than their headers, or longer than any frame.
    var sendDropsMalformed: UInt64 = 0
    /// The link was down, or the queue is not one that takes part.
    var sendDropsDown: UInt64 = 0
    /// The host would not have them.
    var sendDropsRefused: UInt64 = 0
    var receivedFrames: UInt64 = 0
    var receivedBytes: UInt64 = 0
    /// Shorter than an Ethernet header, or longer than any frame or the MTU agreed on.
    var receiveDropsMalformed: UInt64 = 0
    /// Larger than the buffers that the driver gave.
    var receiveDropsNoRoom: UInt64 = 0
    /// Receive buffers ran out while there were frames.
    var receiveWaits: UInt64 = 0
    var linkFailures: UInt64 = 0

    var list: [(name: String, value: UInt64)] {
        [
            ("framesSent", sentFrames), ("bytesSent", sentBytes), ("sendsMalformed", sendDropsMalformed),
            ("sendsLinkDown", sendDropsDown), ("sendsRefused", sendDropsRefused),
            ("framesReceived", receivedFrames), ("bytesReceived", receivedBytes), ("receivesMalformed", receiveDropsMalformed),
            ("receivesNoRoom", receiveDropsNoRoom), ("receivesWaiting", receiveWaits),
            ("linkFailures", linkFailures),
        ]
    }
}
