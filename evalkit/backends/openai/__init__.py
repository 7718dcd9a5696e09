"""Models behind an OpenAI-compatible server: `/v1/completions` of vLLM, SGLang, llama.cpp and others.

`endpoint` says where the server is, `client` and `retry` ask it until it answers, `wire` reads what it says, `listing`
and `probe` find out once what it serves and can do, `tokens` has its token ids, `questions` what is asked,
`choices` and `texts` ask the two kinds of question, `loop` makes a plain iterator of it, `backend` puts all together.
"""
