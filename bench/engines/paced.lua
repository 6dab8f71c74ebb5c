-- Each connection waits so many milliseconds after an answer before it asks again.
function delay()
  return {PACE}
end
