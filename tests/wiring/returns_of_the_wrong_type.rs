use amends::Saga;

fn saga() -> Result<Saga<u64, String>, amends::SagaError> {
    let saga = Saga::builder::<u64>("echo");
    let n = saga.input();
    saga.returns(n)
}

fn main() {
    let _ = saga();
}
