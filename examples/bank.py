from threading import Lock, Thread

ledger, audit = Lock(), Lock()

def transfer():
    with ledger, audit:
        print("transferred")
def reconcile():
    with audit, ledger:
        print("reconciled")
for work in (transfer, reconcile):
    t = Thread(target=work); t.start(); t.join()
