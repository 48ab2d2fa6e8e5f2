internal import Glibc

/// An errno, as the guest is told of it.
struct FileError: Error, Hashable {
    let code: Int32

    init(_ code: Int32) { self.code = code }

    static let noEntry = FileError(ENOENT)
    static let invalid = FileError(EINVAL)
    static let stale = FileError(ESTALE)
    static let badHandle = FileError(EBADF)
    static let readOnly = FileError(EROFS)
    static let notPermitted = FileError(EPERM)
    static let notSupported = FileError(EOPNOTSUPP)
    static let tooManyFiles = FileError(ENFILE)
    /// Not for the guest: the call would have to wait, and was not made; see `FileCall.mayWait`.
    static let wouldWait = FileError(.max)

    /// Whether descriptors have run out, of this process or of the host.
    var isExhaustion: Bool { code == EMFILE || code == ENFILE }
}

/// What a call of the host's returned: a number, or an errno below zero.
@inline(__always) @discardableResult
func checked<Value: SignedInteger>(_ value: Value) throws(FileError) -> Value {
    guard value >= 0 else { throw FileError(Int32(truncatingIfNeeded: 0 - value)) }
    return value
}
