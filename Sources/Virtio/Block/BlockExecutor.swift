internal import VMCore

/// Has requests done, somewhere: where the calls of an image are made.
///
/// The device calls, with its lock held but for `drain`; an executor's own lock comes after the device's. When requests finish
/// elsewhere, the device is told through the work it gave.
protocol BlockExecutor: AnyObject, Sendable {
    var kind: BlockExecution { get }

    /// Takes a request.
    /// - Returns: whether it is finished already, and not to be had from `takeFinished`.
    func submit(_ request: BlockRequest) -> Bool

    /// To be called after a batch of `submit`: what is not begun yet begins.
    func commit()

    /// A request that has finished, if there is one.
    func takeFinished() -> BlockRequest?

    /// Waits until nothing is under way any more, and finishes what has not begun with ECANCELED. Nothing may be submitted
    /// meanwhile, nor after it failed, until as many requests have finished as were submitted.
    ///
    /// - Returns: false where the host still has some of it when the time is over.
    func drain(milliseconds: UInt64) -> Bool
}

/// Where the calls of a disk's image are made.
public enum BlockExecution: String, Hashable, Sendable, CaseIterable {
    /// On the event loop: none of them blocks.
    case immediate
    /// In the host's kernel, through io_uring.
    case ring
    /// On threads of their own.
    case threads
}

/// Calls an image that never blocks.
final class ImmediateExecutor: BlockExecutor {
    let kind = BlockExecution.immediate
    private let image: any BlockImage

    init(_ image: any BlockImage) { self.image = image }

    func submit(_ request: BlockRequest) -> Bool {
        request.result = request.perform(on: image)
        return true
    }

    func commit() {}
    func takeFinished() -> BlockRequest? { nil }
    func drain(milliseconds: UInt64) -> Bool { true }
}
