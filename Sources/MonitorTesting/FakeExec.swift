/// What stands in for `hover exec` in a test of test targets: a script that runs the command on the host, with `$stats` and `$console`
/// for what exec would write there.
public enum FakeExec {
    public static let script = #"""
        #!/bin/sh
        while [ "$1" != -- ]; do
          case $1 in
            --stats) stats=$2 ;;
            --console-log) console=$2 ;;
          esac
          shift
        done
        shift
        export stats console
        "$@"
        status=$?
        [ -e "$stats" ] ||
          printf '{"outcome":"exited","exitStatus":%d,"engine":"interpreter","wallSeconds":0.1}' $status >"$stats"
        exit $status
        """#

    /// A command that ends as a guest would: its outcome, its status, and what hover says.
    public static func ending(_ outcome: String, _ status: Int, _ complaint: String = "") -> String {
        (complaint.isEmpty ? "" : "echo 'hover: \(complaint)' >&2; ")
            + "echo '{\"outcome\":\"\(outcome)\",\"exitStatus\":\(status),\"more\":[1]}' >$stats; exit \(status)"
    }
}
