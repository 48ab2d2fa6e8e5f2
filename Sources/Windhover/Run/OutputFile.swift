internal import Glibc

/// A file that a run is to write: opened before the guest starts, so that a bad path costs nobody a run, and left as it
/// was where the guest never does.
final class OutputFile: @unchecked Sendable {
    struct Failure: Error, Hashable {
        let errno: Int32
    }

    let descriptor: Int32
    private let path: String
    /// Whether opening made it.
    private let isNew: Bool
    /// Whether it holds, or is about to hold, what the run writes. On the run's own thread only.
    private var isBegun = false

    /// Opens it, neither emptying nor waiting for it.
    init(_ path: String) throws(Failure) {
        // O_NONBLOCK: a pipe that nobody reads is an error, not a wait.
        let flags = O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK
        var descriptor = unsafe open(path, flags | O_CREAT | O_EXCL, 0o644)
        isNew = descriptor >= 0
        if descriptor < 0, errno == EEXIST { descriptor = unsafe open(path, flags | O_CREAT, 0o644) }
        guard descriptor >= 0 else { throw Failure(errno: errno) }
        self.descriptor = descriptor
        self.path = path
    }

    /// Empties it, the first time. From here on it stays.
    func begin() {
        guard !isBegun else { return }
        isBegun = true
        // Pipes and devices have no length: for them it fails, as it should.
        _ = ftruncate(descriptor, 0)
    }

    /// Empties it and writes all of `bytes`; where that fails, what was there before is gone and no half is left.
    func replaceContents(with bytes: [UInt8]) throws(Failure) {
        begin()
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let failure = Failure(errno: count < 0 ? errno : EIO)
                _ = ftruncate(descriptor, 0)
                isBegun = false
                throw failure
            }
            rest = rest.dropFirst(count)
        }
    }

    /// Closes it, and removes it again if it is new and was never begun.
    func close() {
        if isNew, !isBegun { _ = unsafe unlink(path) }
        Glibc.close(descriptor)
    }
}
