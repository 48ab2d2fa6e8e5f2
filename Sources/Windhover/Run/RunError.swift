internal import Boot
internal import Glibc
internal import VMCore

/// Why a guest could not be started, with the contract's exit status.
struct RunError: ReportableError, Hashable {
    let exitStatus: ExitStatus
    var description: String

    init(exitStatus: ExitStatus, description: String) {
        self.exitStatus = exitStatus
        self.description = description
    }

    init(_ error: EngineError) {
        description = error.description
        exitStatus =
            switch error {
            case .unavailable, .unsupported, .host: .unavailable
            case .notPermitted: .notPermitted
            case .badState: .guestCrashed
            }
    }

    /// What an errno about a file comes to.
    static func status(ofFile code: Int32) -> ExitStatus {
        switch code {
        case ENOENT, ENOTDIR: .noSuchFile
        case EACCES, EPERM, EROFS: .notPermitted
        default: .badConfiguration
        }
    }

    init(_ error: BootError) {
        description = error.description
        exitStatus =
            switch error {
            case .noSuchFile: .noSuchFile
            case .permissionDenied: .notPermitted
            default: .badConfiguration
            }
    }
}

extension BootError {
    /// Whether the bytes of the image are at fault, not how it meets this guest.
    var isInTheFile: Bool {
        switch self {
        case .emptyFile, .unrecognized, .notAKernel, .truncated, .malformed, .corruptCompression: true
        default: false
        }
    }
}
